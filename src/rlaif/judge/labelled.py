"""Labelled programs: what judges are trained, calibrated and measured on. One JSON object a line."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.errors import ProblemFileError
from rlaif.judge.constitution import BELIEF
from rlaif.types import DIFFICULTIES, Problem, TestCase


@dataclass(frozen=True, slots=True)
class Labelled:
    """A program with the degree in [0, 1] to which it keeps one principle; for correctness 1.0 (passes every test) or 0.0.

    kind: where it comes from (`reference`, `rewrite`, `mutant`, `sample`, `negative`, ...), for figures apart.
    """

    problem: Problem
    code: str
    label: float
    principle: str = BELIEF
    kind: str = "sample"

    @property
    def correct(self) -> bool:
        return self.label >= 0.5


def to_row(item: Labelled) -> dict[str, Any]:
    """The JSON object of one labelled program."""
    problem = item.problem
    row: dict[str, Any] = {"id": problem.id, "prompt": problem.prompt, "entry_point": problem.entry_point, "signature": problem.signature}
    row |= {"preamble": problem.preamble, "reference": problem.reference, "difficulty": problem.difficulty, "topic": problem.topic}
    row["tests"] = [{"role": test.role, "input": test.input, "expected": test.expected, "form": test.form} for test in problem.tests]
    row |= {"solution": item.code, "kind": item.kind}
    return row | (
        {"correct": item.correct} if item.principle == BELIEF and item.label in (0.0, 1.0) else {"principle": item.principle, "label": item.label}
    )


def from_row(row: Any, path: Path, line: int) -> Labelled:
    """Raises ProblemFileError with the field that is missing or wrong."""
    if not isinstance(row, dict):
        raise ProblemFileError(path, line, None, "it is not a JSON object")
    for key in ("prompt", "solution"):
        if not isinstance(row.get(key), str):
            raise ProblemFileError(path, line, key, "it is missing, or no text")
    label = row.get("label", row.get("correct"))
    if not isinstance(label, bool | int | float) or not 0 <= label <= 1:
        raise ProblemFileError(path, line, "correct", "it is neither true nor false", 'write "correct": true, or "label" with a number from 0 to 1')
    try:
        tests = tuple(
            TestCase(test.get("role", "graded"), test["input"], test.get("expected", ""), test.get("form", "call")) for test in row.get("tests") or ()
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ProblemFileError(path, line, "tests", f"{type(error).__name__}: {error}") from None
    entry_point, reference, difficulty = row.get("entry_point"), row.get("reference"), row.get("difficulty")
    problem = Problem(
        str(row.get("id") or row["prompt"]),
        row["prompt"],
        tests,
        entry_point if isinstance(entry_point, str) else None,
        str(row.get("signature") or ""),
        str(row.get("preamble") or ""),
        reference if isinstance(reference, str) else None,
        difficulty if difficulty in DIFFICULTIES else "easy",
        str(row.get("topic") or "general"),
    )
    return Labelled(problem, row["solution"], float(label), str(row.get("principle", BELIEF)), str(row.get("kind", "sample")))


def read_labelled(path: Path) -> Iterator[Labelled]:
    """The labelled programs of a JSONL file, one at a time."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise ProblemFileError(path, number, None, f"not JSON: {error}") from None
                    yield from_row(row, path, number)
    except OSError as error:
        raise ProblemFileError(path, None, None, str(error)) from None


def write_labelled(path: Path, items: Iterable[Labelled]) -> int:
    """Write them and return how many there were."""
    with path.open("w", encoding="utf-8") as out:
        return sum(out.write(json.dumps(to_row(item), ensure_ascii=False) + "\n") > 0 for item in items)


def split_by_problem(items: Iterable[Labelled], shares: tuple[float, ...], seed: int = 0) -> list[list[Labelled]]:
    """Parts of the given shares, each problem whole in one of them: a judge must not be measured on a problem it was trained on."""
    rows = list(items)
    names = sorted({item.problem.id for item in rows})
    random.Random(seed).shuffle(names)
    part_of: dict[str, int] = {}
    start, total = 0, sum(shares)
    for part, share in enumerate(shares):
        end = len(names) if part == len(shares) - 1 else start + round(len(names) * share / total)
        part_of |= dict.fromkeys(names[start:end], part)
        start = end
    return [[item for item in rows if part_of[item.problem.id] == part] for part in range(len(shares))]
