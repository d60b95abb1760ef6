"""Constitutions: the principles a judge scores by, read from a TOML file that a user edits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rlaif.config import load_toml
from rlaif.errors import UsageError

BASE_MODEL = "smollm2-135m"
"""Base of the embedded judge, and of new adapters unless told otherwise."""
BELIEF = "correctness"
"""The principle whose answer, calibrated, is `JudgeReport.score`."""


@dataclass(frozen=True, slots=True)
class Principle:
    """One principle: a yes to `question` means that it is kept."""

    id: str
    principle: str
    question: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Constitution:
    """Principles in the order of the file, `correctness` among them."""

    name: str
    principles: tuple[Principle, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(principle.id for principle in self.principles)

    @property
    def belief(self) -> Principle:
        return next(principle for principle in self.principles if principle.id == BELIEF)

    def mix(self, scores: Mapping[str, float]) -> float | None:
        """The weighted mean of the principles in `scores`; None if no principle of ours is there."""
        known = [(principle.weight, scores[principle.id]) for principle in self.principles if principle.id in scores]
        total = sum(weight for weight, _ in known)
        return sum(weight * score for weight, score in known) / total if total > 0 else None

    def fingerprint(self) -> str:
        """Changes when any word or weight does: part of a cache key, and recorded with a run."""
        text = json.dumps([asdict(principle) for principle in self.principles], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_constitution(path: Path | None = None) -> Constitution:
    """The constitution in `path`, or the built-in one. Raises UsageError that names the file, the principle and the field."""
    if path is None:
        with resources.as_file(resources.files("rlaif.judge") / "constitutions" / "default.toml") as built_in:
            return load_constitution(built_in)
    data = load_toml(path)
    unknown = set(data) - {"name", "principle"}
    if unknown:
        raise UsageError(f"Unknown key '{min(unknown)}' in {path}", "", "a constitution has `name` and [[principle]] tables")
    rows = data.get("principle")
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"No [[principle]] in {path}", "", "copy the built-in constitutions/default.toml and edit it")
    principles = tuple(_principle(row, number, path) for number, row in enumerate(rows, 1))
    ids = [principle.id for principle in principles]
    if len(set(ids)) < len(ids):
        raise UsageError(f"Two principles of {path} share an id", ", ".join(ids), "give each its own")
    if BELIEF not in ids:
        raise UsageError(
            f"{path} has no principle '{BELIEF}'", "its answer is the judge's belief that the code is right", f'add one with id = "{BELIEF}"'
        )
    return Constitution(str(data.get("name", path.stem)), principles)


def _principle(row: Any, number: int, path: Path) -> Principle:
    where = f"principle {number} of {path}"
    if not isinstance(row, dict):
        raise UsageError(f"{where} is not a table")
    unknown = set(row) - {"id", "principle", "question", "weight"}
    if unknown:
        raise UsageError(f"Unknown key '{min(unknown)}' in {where}", "", "a principle has id, principle, question and weight")
    for key in ("id", "principle", "question"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise UsageError(f"'{key}' of {where} is missing or empty", "", f'write {key} = "..."')
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise UsageError(f"'weight' of {where} is {weight!r}", "", "a number of 0 or more")
    return Principle(row["id"].strip(), row["principle"].strip(), row["question"].strip(), float(weight))
