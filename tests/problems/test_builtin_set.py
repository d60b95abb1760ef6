"""The built-in set: its size and shape, every reference right, every kind of mistake noticed, the split fixed."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from rlaif.config import SandboxConfig
from rlaif.problems import load_problems
from rlaif.problems.check import check_problems
from rlaif.problems.dedupe import Pair, near_duplicates, together
from rlaif.problems.split import SPLIT_FILE, known_alike, known_places, stratified_split
from rlaif.sandbox import Sandbox
from rlaif.types import DIFFICULTIES

PROBLEMS = load_problems("builtin")


def test_size_and_splits() -> None:
    assert len(PROBLEMS) >= 500
    splits = Counter(problem.split for problem in PROBLEMS)
    assert splits["test"] >= 100 and splits["validation"] >= 40
    assert min(Counter(problem.difficulty for problem in PROBLEMS).values()) >= 50
    assert {problem.difficulty for problem in PROBLEMS if problem.split == "test"} == set(DIFFICULTIES)
    topics = {problem.topic for problem in PROBLEMS}
    assert {"strings", "lists", "dictionaries", "numbers", "dates", "recursion", "dynamic_programming", "graphs", "parsing"} <= topics
    assert {"classes", "generators", "simulation"} <= topics and {problem.topic for problem in PROBLEMS if problem.split == "test"} == topics


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)
def test_shape(problem) -> None:
    roles = Counter(test.role for test in problem.tests)
    assert len(problem.tests) >= 10 and roles["shown"] >= 1 and roles["graded"] >= 4 and roles["held_out"] >= 3
    assert len({test.input for test in problem.tests}) == len(problem.tests), "a test comes twice"
    assert problem.reference and problem.signature and problem.signature in problem.reference
    assert problem.id == f"{problem.topic}/{problem.entry_point}" and problem.source == "builtin" and not problem.imported
    hidden = Counter(test.expected for test in problem.tests if test.role != "shown")
    assert hidden.most_common(1)[0][1] <= 0.7 * sum(hidden.values()), "one constant answer would pass most tests"


def test_the_split_is_the_one_that_the_rule_gives() -> None:
    words = [Pair(first, second, 0.0, 0.0, "both") for first, second in known_alike()]
    expected = stratified_split(PROBLEMS, together([*near_duplicates(PROBLEMS), *words]), known_places(PROBLEMS))
    assert set(known_places(PROBLEMS)) == set(expected), "run python -m rlaif.problems.split after adding problems"
    assert {problem.id: problem.split for problem in PROBLEMS} == expected, "run python -m rlaif.problems.split after changing problems"


def test_nothing_alike_stands_on_two_sides() -> None:
    split = {problem.id: problem.split for problem in PROBLEMS}
    pairs = [(pair.first, pair.second) for pair in near_duplicates(PROBLEMS)] + [tuple(pair) for pair in known_alike()]
    assert pairs and not [pair for pair in pairs if split[pair[0]] != split[pair[1]]]
    stored = json.loads(SPLIT_FILE.read_text(encoding="utf-8"))
    assert set(stored["test"]) <= set(split) and not set(stored["test"]) & set(stored["validation"])


def test_every_reference_passes_and_mistakes_are_noticed() -> None:
    # One mistake a problem keeps this quick; `rlaif problems check` tries more. At 8 a problem, 2% survived, most of them equivalent.
    with Sandbox(SandboxConfig(timeout_s=1.0)) as sandbox:
        findings = check_problems(PROBLEMS, sandbox, mutants_per_problem=1, least_killed=0.0)
    wrong = [finding for finding in findings if finding.is_error]
    assert not wrong, "\n".join(f"{finding.problem_id}: {finding.test}: {finding.message}" for finding in wrong[:10])
    survivors = sum(finding.kind == "mutant_survives" for finding in findings)
    assert survivors <= 0.05 * len(PROBLEMS)
