"""Procedural families: fresh, fixed by the seed, varied, and right by their own references."""

from __future__ import annotations

import ast
from collections import Counter
from itertools import islice

import pytest

from rlaif.config import SandboxConfig
from rlaif.problems import problem_from_dict, problem_to_dict
from rlaif.problems.check import check_problems
from rlaif.problems.generate import FAMILIES, endless, generate
from rlaif.sandbox import Sandbox

SAMPLE = generate(4 * len(FAMILIES), seed=7)


def test_the_seed_fixes_everything() -> None:
    assert generate(30, seed=7) == SAMPLE[:30]
    assert generate(30, seed=8) != SAMPLE[:30]


def test_families_take_turns_and_repeat_nothing() -> None:
    assert len(FAMILIES) >= 8
    assert set(Counter(problem.topic for problem in SAMPLE).values()) == {4}
    assert len({problem.reference for problem in SAMPLE}) == len({problem.id for problem in SAMPLE}) == len(SAMPLE)


def test_each_is_a_whole_problem() -> None:
    for problem in SAMPLE:
        assert len(problem.tests) >= 10 and len({test.input for test in problem.tests}) == len(problem.tests)
        assert {test.role for test in problem.tests} == {"shown", "graded", "held_out"}
        assert problem.reference is not None and problem.signature in problem.reference and problem.source == "generated"
        assert len({test.expected for test in problem.tests}) > 1, f"a constant answer would pass: {problem.prompt}"
        for test in problem.tests:
            ast.literal_eval(test.expected)
        assert problem_from_dict(problem_to_dict(problem), path="f", line=1) == problem


def test_references_pass_in_the_sandbox_and_mistakes_fail() -> None:
    with Sandbox(SandboxConfig(timeout_s=1.0)) as sandbox:
        findings = check_problems(SAMPLE, sandbox, mutants_per_problem=2)
    assert not [finding for finding in findings if finding.kind == "reference_fails"]
    survivors = sum(finding.kind == "mutant_survives" for finding in findings)
    assert survivors <= 0.15 * 2 * len(SAMPLE)


def test_asking_for_families() -> None:
    assert {problem.topic for problem in generate(6, 0, ["digits", "machine"])} == {"digits", "machine"}
    with pytest.raises(ValueError, match="no family is called 'poems'"):
        generate(1, 0, ["poems"])
    assert len(list(islice(endless(3), 50))) == 50


def test_a_small_family_says_when_it_is_spent() -> None:
    with pytest.raises(ValueError, match="no more rules"):
        generate(5000, 0, ["windows"])
