"""Tests that a language model wrote, and the gate they pass before they may reward anybody.

Models write wrong expectations often and empty tests oftener. A test is admitted only if the reference passes it and a mistake put
into the reference fails it; what is admitted is graded like any other test, and never shown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlaif.problems import pysource
from rlaif.problems.check import Runner, problem_mutants
from rlaif.types import Problem, Role, TestCase, TestReport

LONGEST_TEST = 4000
"""Characters; beyond this a test is refused unread."""


@dataclass(frozen=True, slots=True)
class Admission:
    """One proposed test and what the gate said. `kills`: how many mutants fail it."""

    test: TestCase
    admitted: bool
    why: str
    kills: int = 0


def request_for_tests(problem: Problem, count: int = 8) -> str:
    """What a model is asked. Its reply goes to `parse_tests`; nothing of it is trusted before `admit_tests`."""
    return (
        f"{problem.prompt.strip()}\n\n{problem.signature}\n\n"
        f"Write {count} test assertions for `{problem.entry_point}`, one a line, each of the form `assert {problem.entry_point}(...) == literal`. "
        "Cover edge cases: empty, smallest, largest, equal, negative. Answer with one Python code block and nothing else."
    )


def parse_tests(problem: Problem, reply: str) -> list[TestCase]:
    """The asserts of a reply (its fenced blocks, or all of it), each as its own test; lines that are not asserts are dropped.

    `assert f(args) == literal` becomes a `call` test, any other assert that calls the function a `code` test.
    """
    blocks = re.findall(r"(?ms)^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", reply) or [reply]
    tests: list[TestCase] = []
    for block in blocks:
        tree = pysource.parse_or_none(block)
        statements = (
            tree.body if tree else [node for line in block.splitlines() if (part := pysource.parse_or_none(line.strip())) for node in part.body]
        )
        tests += [test for node in statements if isinstance(node, ast.Assert) and (test := _as_test(problem, node)) is not None]
    return list(dict.fromkeys(tests))


def _as_test(problem: Problem, node: ast.Assert) -> TestCase | None:
    if problem.entry_point not in pysource.free_names(ast.unparse(node)):
        return None
    if len(ast.unparse(node)) > LONGEST_TEST:
        return None
    match node.test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]) if pysource.literal_error(ast.unparse(right)) is None:
            return TestCase("graded", ast.unparse(left), ast.unparse(right))
    return TestCase("graded", ast.unparse(ast.Assert(node.test)), form="code")


def admit_tests(
    problem: Problem, tests: Sequence[TestCase], sandbox: Runner, *, role: Role = "graded", mutant_count: int = 12, seed: int = 0
) -> list[Admission]:
    """Pass each test through the gate; answers in the order of `tests`.

    Refused: tests for a problem without a reference; repetitions of a test that the problem has or that came before; tests that the
    reference fails, or passes only now and then (it is run twice); tests that no mutant fails. Raises ValueError for role `shown`.
    """
    if role == "shown":
        raise ValueError("a test of a model's own may be graded or held_out, never shown")
    if problem.reference is None:
        return [Admission(test, False, "the problem has no reference to try it on") for test in tests]
    known = {_key(test) for test in problem.tests}
    verdicts: dict[int, Admission] = {}
    fresh: list[int] = []
    for i, test in enumerate(tests):
        if _key(test) in known:
            verdicts[i] = Admission(test, False, "it repeats a test")
        else:
            known.add(_key(test))
            fresh.append(i)
    candidates = [(i, replace(problem, tests=(replace(tests[i], role=role),))) for i in fresh]
    programs = [problem.reference, problem.reference, *problem_mutants(problem, mutant_count, seed)]
    reports = iter(_run(sandbox, [(candidate, code) for _, candidate in candidates for code in programs]))
    for i, candidate in candidates:
        row = [next(reports) for _ in programs]
        verdicts[i] = _judge(candidate.tests[0], row[:2], row[2:])
    return [verdicts[i] for i in range(len(tests))]


def with_admitted(problem: Problem, admissions: Sequence[Admission]) -> Problem:
    """The problem with the admitted tests added."""
    return replace(problem, tests=(*problem.tests, *(item.test for item in admissions if item.admitted)))


def _judge(test: TestCase, reference: list[TestReport], mutants: list[TestReport]) -> Admission:
    if any(report.outcome == "infra_failure" for report in (*reference, *mutants)):
        return Admission(test, False, "the sandbox could not run it")
    passes = [report.all_passed for report in reference]
    if not any(passes):
        return Admission(test, False, "the reference fails it")
    if not all(passes):
        return Admission(test, False, "the reference passes it only now and then")
    kills = sum(not report.all_passed for report in mutants)
    if not kills:
        return Admission(test, False, "it passes every mistake put into the reference")
    return Admission(test, True, f"the reference passes it and {kills} of {len(mutants)} mistakes fail it", kills)


def _key(test: TestCase) -> tuple[str, str]:
    """Two spellings of one call are one test."""
    tree = pysource.parse_or_none(test.input)
    return test.form, ast.unparse(tree) if tree else test.input


def _run(sandbox: Runner, programs: list[tuple[Problem, str]]):
    from rlaif.sandbox.box import Job

    return sandbox.run_many(Job(problem, code, ("graded", "held_out")) for problem, code in programs)
