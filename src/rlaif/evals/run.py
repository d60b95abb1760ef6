"""Evaluate a model, or completions that exist already, on problems with tests. Nothing here knows what a model is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from rlaif.config import EvalConfig
from rlaif.errors import RunFailed, UsageError
from rlaif.evals.result import EvalResult, ProblemResult, Protocol
from rlaif.types import Completion, Problem, Role, TestReport

if TYPE_CHECKING:
    from rlaif.sandbox import Job

Generate = Callable[[Sequence[Problem], int], Sequence[Sequence[Completion]]]
"""(problems, samples per problem) → completions[problem][sample]."""


class Runner(Interface):
    """What is needed of a `Sandbox`."""

    grade: str

    def run_many(self, jobs: Iterable[Job]) -> Iterator[TestReport]: ...


def evaluation_roles(problem: Problem) -> tuple[Role, ...]:
    """Which tests decide at evaluation: everything that was not shown.

    An imported set counts all of its tests, shown ones too, because that is what its published scores count: HumanEval's whole `check`,
    all three of MBPP's asserts, of which the prompt shows the first. In training the three keep apart: the first is shown, the second
    graded, the third held out for the monitor.
    """
    return ("shown", "graded", "held_out") if problem.imported else ("graded", "held_out")


def evaluate(
    generate: Generate,
    problems: Sequence[Problem],
    sandbox: Runner,
    config: EvalConfig,
    *,
    model: str = "",
    on_report: Callable[[Problem, Completion, TestReport], None] | None = None,
) -> EvalResult:
    """Sample `config.samples` completions for each problem, run them, and say how many passed all of their tests.

    on_report: called for each judged or unjudged sample in order, for progress and logs.
    Raises UsageError if a k is larger than the number of samples or no problem has a test, RunFailed if `generate` breaks its word.
    """
    from rlaif.sandbox import Job

    largest = max(config.k)
    if largest > config.samples:
        raise UsageError(f"pass@{largest} needs at least {largest} samples a problem", f"samples is {config.samples}", f"--samples {largest}")
    testable = [problem for problem in problems if problem.tests_of(*evaluation_roles(problem))]
    if not testable:
        raise UsageError("Nothing to evaluate", f"none of the {len(problems)} problems has a test", "use problems that have tests")
    start = time.perf_counter()
    completions = generate(testable, config.samples)
    generate_s = time.perf_counter() - start
    if len(completions) != len(testable) or any(len(row) != config.samples for row in completions):
        raise RunFailed("The sampler broke its word", f"asked for {len(testable)} x {config.samples} completions", "this is a bug: run with --debug")

    tally = {problem.id: Tally(problem) for problem in testable}
    pairs = [(problem, completion) for problem, row in zip(testable, completions, strict=True) for completion in row]
    jobs = (Job(problem, completion.code, evaluation_roles(problem)) for problem, completion in pairs)
    start = time.perf_counter()
    for (problem, completion), report in zip(pairs, sandbox.run_many(jobs), strict=True):
        tally[problem.id].add(report, truncated=completion.finish_reason == "length")
        if on_report is not None:
            on_report(problem, completion, report)
    execute_s = time.perf_counter() - start
    greedy = config.samples == 1
    temperature = 0.0 if greedy else config.temperature
    protocol = Protocol(config.problems, config.split, config.samples, greedy, temperature, config.max_new_tokens, config.seed)
    untested = len(problems) - len(testable)
    notes = (f"{untested} problems have no tests and were left out",) if untested else ()
    return collect(tally.values(), model, protocol, config.k, generate_s, execute_s, sandbox.grade, notes)


class Tally:
    """Counts for one problem: its memory does not grow with the number of samples."""

    def __init__(self, problem: Problem) -> None:
        self.row = ProblemResult(problem.id, problem.topic, problem.difficulty, samples=0, passed=0)
        self.failures: Counter[str] = Counter()

    def add(self, report: TestReport, truncated: bool = False) -> None:
        """Count one sample. A fault of the machine is counted apart: it is nobody's failure."""
        row = self.row
        if report.outcome in ("infra_failure", "invalid_input"):
            self.row = replace(row, infra=row.infra + 1)
            return
        self.row = replace(
            row,
            samples=row.samples + 1,
            passed=row.passed + report.all_passed,
            truncated=row.truncated + truncated,
            tests_passed=row.tests_passed + report.passed,
            tests_total=row.tests_total + report.total,
        )
        if not report.all_passed:
            self.failures[report.failure or "wrong_answer"] += 1


def collect(
    tallies: Iterable[Tally],
    model: str,
    protocol: Protocol,
    k: tuple[int, ...],
    generate_s: float,
    execute_s: float,
    grade: str,
    notes: tuple[str, ...] = (),
) -> EvalResult:
    """Put the counts of all problems together."""
    done = list(tallies)
    failures = sum((tally.failures for tally in done), Counter())
    return EvalResult(model, protocol, tuple(tally.row for tally in done), k, dict(failures), generate_s, execute_s, grade, notes)
