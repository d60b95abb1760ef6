"""Near-duplicates are found, strangers are not, and the split is fixed, stratified and free of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from rlaif.problems import load_problems, problem_from_dict
from rlaif.problems.dedupe import jaccard, near_duplicates, normal_form, overlap_report, prompt_shingles, together, without_overlap
from rlaif.problems.split import split_by_hash, stable_hash, stratified_split
from rlaif.types import Problem

SUMS = "def total(xs):\n    out = 0\n    for x in xs:\n        if x > 0:\n            out += x\n    return out\n"


def make(name: str, prompt: str, reference: str | None = None) -> Problem:
    return Problem(id=name, prompt=prompt, reference=reference)


def test_normal_form_sees_through_names_and_comments() -> None:
    head = 'def s(values: list[int]) -> int:\n    """Doc."""\n    import math\n    acc: int = 0\n'
    other = head + "    for v in values:\n        if v > 0:\n            acc += v  # add\n    return acc"
    assert normal_form(SUMS) == normal_form(other) != ""
    assert normal_form(SUMS) != normal_form(SUMS.replace("> 0", "> 1"))
    assert normal_form("def f(x):\n    return len(x)") != normal_form("def f(x):\n    return sum(x)"), "builtins are not the program's own names"
    assert normal_form("not python(") == ""


def test_jaccard_and_shingles_by_hand() -> None:
    assert prompt_shingles("Return the even numbers of a list.") == {"even", "number", "list", "even number", "number list"}
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0.0


def test_finds_the_retold_and_the_reworded() -> None:
    words = make("a", "Return the sum of all positive numbers of a list of integers.", SUMS)
    reworded = make(
        "b",
        "Write a function that returns the sum of all positive numbers in the given list of integers.",
        "def f(x):\n    return sum(v for v in x if v > 0)",
    )
    retold = make("c", "How much money came in? Add up what is above nothing.", SUMS.replace("total", "income").replace("xs", "amounts"))
    stranger = make("d", "Return the longest word of a sentence.", "def f(x):\n    return max(x.split(), key=len)")
    pairs = {(pair.first, pair.second): pair.rule for pair in near_duplicates([words, reworded, retold, stranger])}
    assert pairs == {("a", "b"): "prompt", ("a", "c"): "reference"}
    assert [sorted(group) for group in together(near_duplicates([words, reworded, retold, stranger]))] == [["a", "b", "c"]]


def test_overlap_report() -> None:
    long = "the quick brown fox jumps over the lazy dog while seventeen grey cats watch silently from the wall"
    train = [
        make("t1", f"First part is unlike. {long}. It goes on about other things entirely, such as parsing of numbers and dates."),
        make("t2", "Reverse a text."),
    ]
    evaluation = [
        make("e1", f"Nothing here is the same, but {long}. Count vowels, consonants, digits; then sort by frequency."),
        make("e2", "Add two numbers."),
    ]
    report = overlap_report(train, evaluation)
    assert [(pair.first, pair.second, pair.rule) for pair in report.pairs] == [("t1", "e1", "ngram")]
    assert report.contaminated == ("e1",) and report.share == 0.5
    assert "1 of 2 evaluation problems (50.0%)" in report.lines()[0] and "13 words in a row" in report.lines()[1]
    assert report.to_dict()["pairs"][0]["rule"] == "ngram"
    assert "none of 1" in overlap_report(train, evaluation[1:]).lines()[0]


def test_known_overlap_of_the_builtin_set_is_reported() -> None:
    prime = next(problem for problem in load_problems("builtin") if problem.id == "numbers/is_prime_number")
    public = make("HumanEval/31", "Return true if a given number is prime, and false otherwise.")
    assert [pair.rule for pair in overlap_report([prime], [public]).pairs] == ["behaviour"]
    stranger = Problem(id="numbers/is_prime_number", prompt="Someone else's problem of that name.", source="user")
    assert not overlap_report([stranger], [public]).pairs


def test_split_is_stable_stratified_and_keeps_groups_together() -> None:
    problems = [
        Problem(id=f"{topic}/{i}", prompt="p", topic=topic, difficulty=level)
        for topic in "abcdefgh"
        for i, level in enumerate(["easy", "medium", "hard"] * 8)
    ]
    groups = [["a/0", "b/1", "c/2"], ["d/3", "h/20"]]
    chosen = stratified_split(problems, groups)
    assert chosen == stratified_split(problems[::-1], groups)
    counts = Counter(chosen.values())
    assert counts["test"] / len(problems) == pytest.approx(0.16, abs=0.03) and counts["validation"] / len(problems) == pytest.approx(0.055, abs=0.02)
    for level in ("easy", "medium", "hard"):
        share = sum(chosen[p.id] == "test" for p in problems if p.difficulty == level) / 64
        assert share == pytest.approx(0.16, abs=0.06)
    for group in groups:
        assert len({chosen[name] for name in group}) == 1
    more = [*problems, *(Problem(id=f"new/{i}", prompt="p", topic="new", difficulty="easy") for i in range(40))]
    later = stratified_split(more, [*groups, ["new/0", "a/5"]], chosen)
    assert {name: later[name] for name in chosen} == chosen, "what was placed stays"
    assert later["new/0"] == chosen["a/5"], "and takes along what is like it"
    assert 1 <= sum(later[f"new/{i}"] == "test" for i in range(40)) <= 12
    assert stable_hash("a") == 0xCA978112CA1BBDCA, "the first 8 bytes of SHA-256 of 'a'"


def test_split_of_a_file_does_not_depend_on_its_order() -> None:
    problems = [make(str(i), f"prompt {i}") for i in range(50)]
    forward = {p.prompt: p.split for p in split_by_hash(problems)}
    assert forward == {p.prompt: p.split for p in split_by_hash(problems[::-1])}
    assert Counter(forward.values()) == {"train": 40, "test": 10}


def test_no_near_duplicates_across_the_builtin_split() -> None:
    problems = load_problems("builtin")
    split = {problem.id: problem.split for problem in problems}
    across = [pair for pair in near_duplicates(problems) if split[pair.first] != split[pair.second]]
    assert not across, across


@pytest.mark.parametrize("name", ["humaneval.jsonl", "mbpp_sanitized.jsonl"])
def test_builtin_set_is_apart_from_public_ones(name: str) -> None:
    folder = os.environ.get("RLAIF_SHARED")
    if not folder or not Path(folder, "data", name).exists():
        pytest.skip("needs RLAIF_SHARED, a folder with data/humaneval.jsonl and data/mbpp_sanitized.jsonl")
    public = load_problems(str(Path(folder, "data", name)))
    builtin = load_problems("builtin")
    report = overlap_report(builtin, public)
    alike = {pair.second for pair in report.pairs if pair.rule != "behaviour"}
    assert len(alike) < 0.025 * len(public), report.lines()
    same_task = {pair.second for pair in report.pairs if pair.rule == "behaviour"}
    assert 10 < len(same_task) < 0.3 * len(public), "basic tasks are the same everywhere, and that is said"
    assert overlap_report(without_overlap(builtin, report), public).share == 0.0
    assert overlap_report(public[:50], public[:50]).share == 1.0, "the same check finds a set in itself"


def test_public_files_load() -> None:
    folder = os.environ.get("RLAIF_SHARED")
    if not folder:
        pytest.skip("needs RLAIF_SHARED")
    humaneval = load_problems(str(Path(folder, "data", "humaneval.jsonl")))
    assert len(humaneval) == 164 and all(problem.reference and problem.signature and problem.prompt for problem in humaneval)
    mbpp = load_problems(str(Path(folder, "data", "mbpp_sanitized.jsonl")))
    assert Counter(problem.split for problem in mbpp) == {"test": 257, "train": 127, "validation": 43}, "the published split"
    assert problem_from_dict({"prompt": "p"}, path="f", line=1).tests == ()
