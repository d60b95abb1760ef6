"""Is a problem set fit to train on? Every reference passes every test, shown ones too, and mistakes put into it are noticed."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal, Protocol

from rlaif.problems import pysource
from rlaif.problems.mutate import mutants
from rlaif.types import Problem, TestReport, TestResult

if TYPE_CHECKING:
    from rlaif.sandbox.box import Job

FEWEST_MUTANTS = 3
"""A reference with fewer mutants than this that are sure to end also gets those that may hang."""


class Runner(Protocol):
    """What is needed of a `Sandbox`."""

    def run_many(self, jobs: Iterable[Job]) -> Iterator[TestReport]: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a problem, or (a surviving mutant) something to look at.

    `reference_fails`, `weak_tests` and `infra_failure` are errors; `no_reference`, `mutant_survives` and `label_disagrees` are not.
    """

    problem_id: str
    kind: Literal["reference_fails", "weak_tests", "infra_failure", "no_reference", "mutant_survives", "label_disagrees"]
    message: str
    test: str | None = None
    """The input of the test that failed."""
    mutant: str | None = None
    """The program that passed although it is wrong, or seems to be."""

    @property
    def is_error(self) -> bool:
        return self.kind in ("reference_fails", "weak_tests", "infra_failure")


def check_problems(
    problems: Sequence[Problem], sandbox: Runner, *, mutants_per_problem: int = 6, seed: int = 0, least_killed: float = 0.5
) -> list[Finding]:
    """Run every reference on all its tests, then up to `mutants_per_problem` mutants of those that pass.

    least_killed: with fewer than this share of its mutants noticed, a problem's tests are `weak_tests`. It is not 1 because some
    mutants mean the same as their source. Findings come in the problems' order.
    """
    findings: dict[str, list[Finding]] = {problem.id: [] for problem in problems}
    sound = []
    with_reference = [problem for problem in problems if problem.reference is not None and problem.tests]
    for problem in problems:
        if problem.reference is None:
            findings[problem.id].append(Finding(problem.id, "no_reference", "it has no reference, so its tests cannot be checked"))
    for problem, report in zip(with_reference, _run(sandbox, ((p, p.reference or "") for p in with_reference)), strict=True):
        found = _judge_reference(problem, report)
        findings[problem.id] += found
        if not found:
            sound.append(problem)
    pairs = [(problem, mutant) for problem in sound for mutant in problem_mutants(problem, mutants_per_problem, seed)]
    survivors: dict[str, list[str]] = {}
    totals: dict[str, int] = {}
    for (problem, mutant), report in zip(pairs, _run(sandbox, pairs), strict=True):
        totals[problem.id] = totals.get(problem.id, 0) + (report.outcome != "infra_failure")
        if report.all_passed:
            survivors.setdefault(problem.id, []).append(mutant)
    for name, alive in survivors.items():
        findings[name] += [Finding(name, "mutant_survives", "its tests pass a changed reference", mutant=mutant) for mutant in alive]
        killed = 1 - len(alive) / totals[name]
        if killed < least_killed:
            message = f"its tests notice {totals[name] - len(alive)} of {totals[name]} mistakes put into the reference"
            findings[name].append(Finding(name, "weak_tests", message, mutant=alive[0]))
    return [finding for problem in problems for finding in findings[problem.id]]


def problem_mutants(problem: Problem, limit: int, seed: int) -> list[str]:
    """Mutants of the reference, with those that may hang only where there are hardly any others."""
    if problem.reference is None:
        return []
    found = mutants(problem.reference, limit, seed)
    if len(found) < min(FEWEST_MUTANTS, limit):
        more = mutants(problem.reference, limit + len(found), seed, may_hang=True)
        found += [mutant for mutant in more if mutant not in found][: min(FEWEST_MUTANTS, limit) - len(found)]
    return found


def first_failure(report: TestReport) -> TestResult | None:
    """The first test that did not pass."""
    return next((result for result in report.results if not result.passed), None)


def _judge_reference(problem: Problem, report: TestReport) -> list[Finding]:
    if report.all_passed:
        return []
    if report.outcome == "infra_failure":
        return [Finding(problem.id, "infra_failure", f"it could not be checked: {report.failure}")]
    failed = [result for result in report.results if not result.passed]
    if not failed:
        return [Finding(problem.id, "reference_fails", f"its reference does not run: {report.failure}: {report.message}")]
    return [Finding(problem.id, "reference_fails", _difference(result), test=result.test.input) for result in failed]


def _difference(result: TestResult) -> str:
    if result.error:
        return f"the reference fails its test: {result.error}"
    return f"the reference gives {result.actual} and the test expects {result.test.expected}"


def _run(sandbox: Runner, programs: Iterable[tuple[Problem, str]]) -> Iterator[TestReport]:
    from rlaif.sandbox.box import Job

    return sandbox.run_many(Job(problem, code, ("shown", "graded", "held_out")) for problem, code in programs)


def stand_ins(problems: Sequence[Problem], sandbox: Runner) -> list[tuple[str, str]]:
    """(a, b) where the reference of a passes every test of b: the same task in other words, or tests of b that ask too little.

    Words and syntax trees cannot see that (`dedupe` compares those). Only functions are tried whose first calls have arguments and
    answers of the same types; one program is run for each such pair, so this is for the making of a set, not for every load.
    """
    groups: dict[tuple[str, ...], list[Problem]] = {}
    for problem in problems:
        shape = _shape(problem)
        if shape is not None:
            groups.setdefault(shape, []).append(problem)
    pairs = [(a, b) for group in groups.values() for a in group for b in group if a is not b]
    programs = ((b, f"{a.preamble}\n{a.reference}\n{b.entry_point} = {a.entry_point}\n") for a, b in pairs)
    return [(a.id, b.id) for (a, b), report in zip(pairs, _run(sandbox, programs), strict=True) if report.all_passed]


def _shape(problem: Problem) -> tuple[str, ...] | None:
    """The types in the first plain call: of each argument, and of the answer. None if there is no such call."""
    for test in problem.tests:
        tree = pysource.parse_or_none(test.input)
        if problem.reference is None or test.form != "call" or tree is None or len(tree.body) != 1:
            continue
        match tree.body[0]:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=args, keywords=[])) if name == problem.entry_point:
                texts = [*(ast.unparse(arg) for arg in args), test.expected]
                if all(pysource.literal_error(text) is None for text in texts):
                    return tuple(type(ast.literal_eval(text)).__name__ for text in texts)
    return None


def check_labels(problems: Sequence[Problem], rates: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Difficulty labels against what models were measured to solve (model -> id -> pass rate), where the two plainly disagree.

    A problem's rate is its mean over the models that were asked. An easy one disagrees if it is solved no more often than the median hard
    one, a hard one if it is solved at least as often as the median easy one, a medium one if it lies outside both medians.
    """
    mean = {one.id: fmean(found) for one in problems if (found := [rate[one.id] for rate in rates.values() if one.id in rate])}
    level = {name: [mean[one.id] for one in problems if one.difficulty == name and one.id in mean] for name in ("easy", "hard")}
    if not level["easy"] or not level["hard"] or median(level["easy"]) <= median(level["hard"]):
        return []  # nothing to tell the labels by
    easy, hard = median(level["easy"]), median(level["hard"])
    found = []
    for one in problems:
        rate = mean.get(one.id)
        if rate is None:
            continue
        low, high = {"medium": (rate < hard, rate > easy), "hard": (False, rate >= easy)}.get(one.difficulty, (rate <= hard, False))
        if low or high:
            other = "a hard" if low else "an easy"
            medians = f"the median easy one {easy:.0%}, the median hard one {hard:.0%}"
            words = f"labelled {one.difficulty}, but solved in {rate:.0%} of the models' tries, like {other} one ({medians})"
            found.append(Finding(one.id, "label_disagrees", words))
    return found
