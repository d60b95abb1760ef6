"""Procedural families: fresh, fixed by the seed, varied, and right by their own references."""

from __future__ import annotations

import ast
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from rlaif.config import SandboxConfig
from rlaif.errors import UsageError
from rlaif.problems import load_problems, problem_from_dict, problem_to_dict
from rlaif.problems.check import check_problems
from rlaif.problems.generate import FAMILIES, FIRST_LEVEL, NAMED, endless, generate
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


def test_sets_by_name() -> None:
    first = load_problems("generated/intro")
    assert len(first) == NAMED and {problem.topic for problem in first} == set(FIRST_LEVEL) and {problem.difficulty for problem in first} == {"intro"}
    train, test = (load_problems("generated/intro", split=split) for split in ("train", "test"))
    assert len(test) == NAMED // 5 and not {problem.prompt for problem in train} & {problem.prompt for problem in test}
    assert 20 < len(load_problems("generated/windows")) < NAMED, "a small family gives what it has"
    assert {problem.topic for problem in load_problems("generated", limit=50)} == set(FAMILIES)
    with pytest.raises(UsageError, match="No generated problems 'poems'"):
        load_problems("generated/poems")


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "mine.jsonl").write_text('{"prompt": "Add one", "test_input": "up(1)", "expected_output": "2"}\n', encoding="utf-8")
    assert [problem.prompt for problem in load_problems("generated/mine.jsonl")] == ["Add one"]
    assert [problem.prompt for problem in load_problems("generated")] == ["Add one"]


def test_functions_of_the_first_level_are_named_after_their_rule() -> None:
    names = Counter(problem.entry_point for problem in load_problems("generated/intro"))
    assert len(names) > 0.6 * NAMED and all(name.isidentifier() for name in names)
