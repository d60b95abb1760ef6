"""Mutants, the check of references, and the gate for tests that a model wrote."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.problems import load_problems, problem_from_dict
from rlaif.problems.ai_tests import admit_tests, parse_tests, request_for_tests, with_admitted
from rlaif.problems.check import check_problems, problem_mutants
from rlaif.problems.mutate import mutants
from rlaif.types import Problem, TestCase, TestReport

CLAMP = "def clamp(x, low, high):\n    if x < low:\n        return low\n    if x > high:\n        return high\n    return x\n"
FULL = [("clamp(5, 0, 9)", "5"), ("clamp(-1, 0, 9)", "0"), ("clamp(10, 0, 9)", "9"), ("clamp(0, 0, 9)", "0"), ("clamp(9, 0, 9)", "9")]


def clamp(tests: list[tuple[str, str]], reference: str | None = CLAMP) -> Problem:
    rows = [{"role": "graded", "input": given, "expected": expected} for given, expected in tests]
    return problem_from_dict({"id": "clamp", "prompt": "p", "entry_point": "clamp", "tests": rows, "reference": reference}, path="f", line=1)


SOURCES = [problem.reference for problem in load_problems("builtin")]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOURCES), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_mutants_are_programs_unequal_to_the_source_and_to_each_other(source: str, limit: int, seed: int, may_hang: bool) -> None:
    found = mutants(source, limit, seed, may_hang=may_hang)
    assert len(found) <= limit and len(set(found)) == len(found)
    assert ast.unparse(ast.parse(source)) not in found
    for mutant in found:
        ast.parse(mutant)
    assert found == mutants(source, limit, seed, may_hang=may_hang)


@pytest.mark.parametrize(
    ("source", "mutant"),
    [
        ("def f(x):\n    return x < 3", "x <= 3"),
        ("def f(x):\n    return x < 3", "x < 4"),
        ("def f(x):\n    return 1 < x < 3", "1 < x <= 3"),
        ("def f(x):\n    return x + 1", "x - 1"),
        ("def f(x):\n    return x[0]", "x[1]"),
        ("def f(x, i):\n    return x[i]", "x[i + 1]"),
        ("def f(x):\n    return [i for i in range(x)]", "range(x - 1)"),
        ("def f(x):\n    return [i for i in x if i]", "[i for i in x]"),
        ("def f(x):\n    if x:\n        return 1\n    else:\n        return 2", "not x"),
        ("def f(x):\n    return g(x, 1)", "g(1, x)"),
        ("def f(x):\n    return x and True", "x or True"),
        ("def f(x):\n    return not x", "return x"),
        ("def f(x):\n    t = 0\n    for i in x:\n        t += i\n    return t", "pass"),
        ("def f(x):\n    return abs(x)", "return x"),
        ("def f(x):\n    return x", "return None"),
        ("def f(x):\n    return {**x, **{}}", "**{}, **x"),
    ],
)
def test_each_kind_of_mistake(source: str, mutant: str) -> None:
    assert any(mutant in text for text in mutants(source, 50, 0))


def test_loops_are_spared_unless_asked_for() -> None:
    source = "def f(n):\n    while n > 1:\n        n -= 2\n    return n"
    assert not any("n += 2" in text or "n >= 1" in text for text in mutants(source, 50, 0))
    assert any("n += 2" in text for text in mutants(source, 50, 0, may_hang=True))


def test_annotations_and_docstrings_are_no_mistakes() -> None:
    source = 'def f(x: "Vector" = 3) -> "Vector":\n    """Text."""\n    return x'
    assert all('"""Text."""' in text and "'Vector'" in text for text in mutants(source, 50, 0))


def test_a_broken_source_is_an_error() -> None:
    with pytest.raises(ValueError, match="not valid Python"):
        mutants("def f(", 3, 0)


def test_sound_problem_has_no_finding_but_equivalent_mutants(runner) -> None:
    findings = check_problems([clamp(FULL)], runner, mutants_per_problem=50)
    assert {finding.kind for finding in findings} <= {"mutant_survives"}
    # `x < low` and `x <= low` mean the same: at the boundary both return the boundary.
    assert {("<=" in finding.mutant) or (">=" in finding.mutant) for finding in findings} == {True}


def test_wrong_reference_is_found_with_its_test(runner) -> None:
    findings = check_problems([clamp([*FULL, ("clamp(3, 0, 2)", "3")])], runner)
    assert [(finding.problem_id, finding.kind, finding.test) for finding in findings] == [("clamp", "reference_fails", "clamp(3, 0, 2)")]
    assert findings[0].is_error


def test_shown_tests_are_checked_too(runner) -> None:
    problem = clamp([*FULL, ("clamp(1, 0, 2)", "7")])
    problem = replace(problem, tests=(*problem.tests[:-1], replace(problem.tests[-1], role="shown")))
    assert check_problems([problem], runner)[0].test == "clamp(1, 0, 2)"


def test_weak_tests_are_found(runner) -> None:
    kinds = {finding.kind for finding in check_problems([clamp(FULL[:1])], runner, mutants_per_problem=20)}
    assert "weak_tests" in kinds and "mutant_survives" in kinds


def test_broken_and_missing_references(runner) -> None:
    raises = check_problems([clamp(FULL, "clamp = undefined_name\n")], runner)
    assert raises[0].kind == "reference_fails" and "does not run" in raises[0].message
    assert check_problems([clamp(FULL, None)], runner)[0].kind == "no_reference"


def test_a_fault_of_the_machine_is_not_the_references(runner) -> None:
    assert check_problems([clamp(FULL, CLAMP + "# INFRA\n")], runner)[0].kind == "infra_failure"


def test_few_mutants_are_filled_up_with_those_that_may_hang() -> None:
    reference = "def countdown(n):\n    while n > 0:\n        yield n\n        n -= 1\n"
    problem = problem_from_dict({"prompt": "p", "entry_point": "countdown", "reference": reference}, path="f", line=1)
    assert len(problem_mutants(problem, 6, 0)) == 3


REPLY = """Here are tests:
```python
assert clamp(5, 0, 9) == 5
assert clamp(-3, 0, 9) == 0
assert clamp(-3,0, 9)==0  # again
assert clamp(4, 0, 9) == 9, "wrong"
assert clamp(8, 0, 9) in (8, 9)
assert isinstance(clamp(2, 0, 9), int)
assert other(1) == 1
x = clamp(1, 2, 3)
```
"""


def test_gate_for_tests_by_a_model(runner) -> None:
    problem = clamp(FULL)
    assert "assert clamp(...) == literal" in request_for_tests(problem)
    proposed = parse_tests(problem, REPLY)
    assert [test.input for test in proposed if test.form == "call"] == ["clamp(5, 0, 9)", "clamp(-3, 0, 9)", "clamp(4, 0, 9)"]
    admissions = admit_tests(problem, proposed, runner)
    by_input = {item.test.input: item for item in admissions}
    assert (by_input["clamp(5, 0, 9)"].admitted, by_input["clamp(5, 0, 9)"].why) == (False, "it repeats a test")
    assert by_input["clamp(-3, 0, 9)"].admitted and by_input["clamp(-3, 0, 9)"].kills > 0
    assert by_input["clamp(4, 0, 9)"].why == "the reference fails it"
    assert by_input["assert clamp(8, 0, 9) in (8, 9)"].admitted
    widened = with_admitted(problem, admissions)
    assert len(widened.tests) == len(problem.tests) + sum(item.admitted for item in admissions)
    assert all(test.role == "graded" for test in widened.tests)


def test_gate_refuses_tests_that_notice_nothing(runner) -> None:
    empty = TestCase("graded", "assert clamp is clamp", form="code")
    assert admit_tests(clamp(FULL), [empty], runner)[0].why == "it passes every mistake put into the reference"
    assert not admit_tests(clamp(FULL, None), [empty], runner)[0].admitted
    with pytest.raises(ValueError, match="never shown"):
        admit_tests(clamp(FULL), [empty], runner, role="shown")


def test_gate_refuses_a_flaky_test() -> None:
    class Flaky:
        turn = 0

        def run_many(self, jobs):
            for job in jobs:
                self.turn += 1
                yield TestReport("scored", tuple(_result(test, self.turn != 2) for test in job.problem.tests))

    from rlaif.types import TestResult as _result

    assert admit_tests(clamp(FULL), [TestCase("graded", "clamp(3, 0, 9)", "3")], Flaky())[0].why == "the reference passes it only now and then"


def test_replies_that_do_not_parse_lose_only_their_bad_lines() -> None:
    assert [test.expected for test in parse_tests(clamp(FULL), "assert clamp(1, 0, 2) == 1\nassert clamp(\n1. assert x\n")] == ["1"]
