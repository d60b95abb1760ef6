"""Overlaps found by running references, and difficulty labels against measured pass rates."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from rlaif.errors import UsageError
from rlaif.problems import load_problems, measured_pass_rates, pass_rates_by_model
from rlaif.problems.check import check_labels
from rlaif.problems.overlaps import find_overlaps, main, plain_examples
from rlaif.types import Problem, TestCase

CHECK = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([5]) == 5\n    assert abs(candidate([])) < 1\n"


def own(name: str, reference: str) -> Problem:
    return Problem(name, "p", entry_point="f", reference=reference, source="builtin")


def test_a_reference_that_passes_a_public_problems_tests_is_found_however_it_is_written() -> None:
    public = Problem("HumanEval/x", "Sum.", (TestCase("graded", CHECK, form="code"),), entry_point="total", imported=True)
    assert plain_examples(public) == [([[1, 2]], 3), ([[5]], 5)]
    candidates = [
        own("a/sum", "def f(xs):\n    return sum(xs)\n"),
        own("a/loop", "def f(values):\n    t = 0\n    for v in values:\n        t += v\n    return t\n"),
        own("a/max", "def f(xs):\n    return max(xs)\n"),
        own("a/two_arguments", "def f(a, b):\n    return a\n"),
        own("a/for_ever", "def f(xs):\n    while True:\n        pass\n"),
        own("a/noisy", "def f(xs):\n    print(xs)\n    raise KeyError\n"),
        own("a/spoils", "def f(xs):\n    return xs.pop() + sum(xs)\n"),
    ]
    assert find_overlaps(candidates, [public]) == {"HumanEval/x": ["a/loop", "a/spoils", "a/sum"]}


def test_tests_with_one_answer_tell_nothing() -> None:
    tests = tuple(TestCase("graded", f"assert even({n}) == True", form="code") for n in (2, 4))
    assert find_overlaps([own("a/yes", "def f(x):\n    return True\n")], [Problem("Mbpp/1", "Even.", tests, entry_point="even")]) == {}


def test_the_public_files_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLAIF_SHARED", str(tmp_path))
    with pytest.raises(UsageError, match=r"no humaneval\.jsonl"):
        main([])


def test_labels_are_held_against_what_models_solve() -> None:
    problems = [Problem(f"p{i}", "x", difficulty=level) for i, level in enumerate(("easy", "easy", "easy", "medium", "hard", "hard", "hard"))]
    weak = {"p0": 1.0, "p1": 0.5, "p2": 0.0, "p3": 0.25, "p4": 0.0, "p5": 0.0, "p6": 0.5}
    strong = {"p0": 1.0, "p1": 1.0, "p2": 0.0, "p3": 0.5, "p4": 0.0, "p5": 0.25, "p6": 1.0}
    found = check_labels(problems, {"weak": weak, "strong": strong})  # medians: easy 0.75, hard 0.125
    assert [(one.problem_id, one.is_error) for one in found] == [("p2", False), ("p6", False)]
    assert "labelled hard" in found[1].message and "75%" in found[1].message
    assert check_labels(problems, {}) == [] and check_labels(problems, {"weak": dict.fromkeys(weak, 0.0)}) == []


def test_stored_rates_are_shares_of_problems_that_exist() -> None:
    known = {problem.id for problem in load_problems("builtin")}
    assert measured_pass_rates()
    for rates in pass_rates_by_model().values():
        assert rates.keys() <= known and all(0 <= rate <= 1 for rate in rates.values())


def test_every_problem_was_tried_by_a_weak_model_and_a_stronger_one_and_the_labels_follow() -> None:
    problems, models = load_problems("builtin"), pass_rates_by_model()
    assert set(models) == {"smollm2-135m", "qwen2.5-coder-0.5b-instruct"}
    means = {}
    for model, rates in models.items():
        assert rates.keys() == {problem.id for problem in problems}
        means[model] = [fmean(rates[one.id] for one in problems if one.difficulty == level) for level in ("intro", "easy", "medium", "hard")]
    weak, strong = means["smollm2-135m"], means["qwen2.5-coder-0.5b-instruct"]
    assert weak[0] > 3 * weak[1] and strong[0] > strong[1] > strong[2] >= strong[3], means
    assert strong[0] > weak[0] and strong[1] > weak[1]
