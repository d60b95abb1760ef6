"""Collecting what a judge learns from: references, their rewrites and mutants, a policy's own samples, labelled by execution.

The rooms below do not know each other, so what makes mutants, runs tests and writes completions is handed in.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rlaif.judge.labelled import Labelled
from rlaif.judge.rewrites import rewrites
from rlaif.judge.sanitise import Sanitised, sanitise
from rlaif.types import Problem, Role, TestReport

ROLES: tuple[Role, ...] = ("shown", "graded", "held_out")


class Candidate(NamedTuple):
    """A program that awaits its label."""

    problem: Problem
    code: str
    kind: str


def from_references(
    problems: Iterable[Problem], mutants: Callable[[str, int, int], list[str]], *, per_problem: int, seed: int = 0
) -> Iterator[Candidate]:
    """References, as many rewrites as mutants, and mutants of rewrites: so that neither form nor distance from the reference gives the label away.

    mutants: (source, limit, seed) -> sources.
    """
    for problem in problems:
        if problem.reference is None:
            continue
        number = zlib.crc32(problem.id.encode())  # the same programs wherever the problem stands in the list
        yield Candidate(problem, problem.reference, "reference")
        rewritten = rewrites(problem.reference, per_problem, seed + number)
        for text in rewritten:
            yield Candidate(problem, text, "rewrite")
        for text in mutants(problem.reference, per_problem // 2, seed + number):
            yield Candidate(problem, text, "mutant")
        for index, text in enumerate(rewritten[: per_problem // 2]):
            for mutant in mutants(text, 2, seed + number + index)[:2]:
                yield Candidate(problem, mutant, "mutant")


def from_samples(
    problems: Sequence[Problem], complete: Callable[[Sequence[Problem]], Sequence[Sequence[str]]], *, kind: str = "sample"
) -> Iterator[Candidate]:
    """A policy's own answers. complete: problems -> programs for each."""
    for problem, codes in zip(problems, complete(problems), strict=True):
        for code in codes:
            yield Candidate(problem, code, kind)


def label(
    candidates: Iterable[Candidate], run_many: Callable[[Iterable[Any]], Iterator[TestReport]], make_job: Callable[..., Any]
) -> Iterator[Labelled]:
    """Label by execution on every role's tests. What no judge would be asked about, what nobody could run, and repeats are left out.

    run_many, make_job: the sandbox's `run_many` and its `Job`.
    """
    seen: set[tuple[str, str]] = set()
    pending: list[Candidate] = []

    def jobs() -> Iterator[Any]:
        for candidate in candidates:
            shown = sanitise(candidate.problem, candidate.code)
            if not isinstance(shown, Sanitised) or (candidate.problem.id, shown.code) in seen:
                continue
            seen.add((candidate.problem.id, shown.code))
            pending.append(candidate)
            yield make_job(candidate.problem, candidate.code, ROLES)

    for report in run_many(jobs()):
        candidate = pending.pop(0)
        if report.outcome in ("scored", "policy_failure"):
            yield Labelled(candidate.problem, candidate.code, float(report.all_passed), kind=candidate.kind)


def balanced(items: Iterable[Labelled], *, most_per_problem: int, seed: int = 0) -> list[Labelled]:
    """Per problem as many correct programs as wrong ones (one side may lead by two), and no problem with one side only.

    Otherwise a judge learns which problems are hard instead of which programs are right.
    """
    rng = random.Random(seed)
    groups: dict[str, tuple[list[Labelled], list[Labelled]]] = {}
    for item in items:
        groups.setdefault(item.problem.id, ([], []))[item.correct].append(item)
    kept: list[Labelled] = []
    for wrong, right in groups.values():
        if not wrong or not right:
            continue
        size = min(len(wrong), len(right))
        for side in (wrong, right):
            kept += rng.sample(side, min(len(side), size + 2, most_per_problem // 2))
    rng.shuffle(kept)
    return kept
