"""What an evaluation found: one row a problem, and every figure derived from the rows, so that a stored result can be compared later."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import UsageError
from rlaif.evals.passk import Interval, mean_interval, pass_at_k
from rlaif.types import DIFFICULTIES, Difficulty


@dataclass(frozen=True, slots=True)
class ProblemResult:
    """One problem. `samples` were judged, `passed` of them passed every test; `infra` more could not be judged and count nowhere.

    truncated: judged samples cut off at the token limit. tests_passed / tests_total: over all judged samples.
    """

    id: str
    topic: str
    difficulty: Difficulty
    samples: int
    passed: int
    infra: int = 0
    truncated: int = 0
    tests_passed: int = 0
    tests_total: int = 0

    @property
    def rate(self) -> float:
        """Share of samples that passed, which is pass@1."""
        return self.passed / self.samples


@dataclass(frozen=True, slots=True)
class Protocol:
    """How it was measured. Two results are comparable only if these are the same."""

    problems: str
    split: str
    samples: int
    greedy: bool
    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class EvalResult:
    """One model on one set of problems."""

    model: str
    protocol: Protocol
    rows: tuple[ProblemResult, ...]
    k: tuple[int, ...] = (1,)
    failures: dict[str, int] = field(default_factory=dict)
    """How many samples failed and why: `wrong_answer`, or a `TestReport.failure`."""
    generate_s: float = 0.0
    execute_s: float = 0.0
    grade: str = "none"
    """The sandbox's grade."""
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> tuple[ProblemResult, ...]:
        """The rows that rest on at least one judged sample."""
        return tuple(row for row in self.rows if row.samples)

    @property
    def infra_failures(self) -> int:
        return sum(row.infra for row in self.rows)

    @property
    def truncated_share(self) -> float:
        samples = sum(row.samples for row in self.rows)
        return sum(row.truncated for row in self.rows) / samples if samples else 0.0

    def pass_at(self, k: int = 1, where: Callable[[ProblemResult], bool] = lambda row: True) -> Interval | None:
        """pass@k with its interval over the problems that `where` keeps; None if none of them has k judged samples."""
        scores = [pass_at_k(row.samples, row.passed, k) for row in self.judged if where(row) and row.samples >= k]
        return mean_interval(scores) if scores else None

    @property
    def success(self) -> Interval | None:
        """The success rate: pass@1."""
        return self.pass_at(1)

    def by_difficulty(self) -> dict[str, Interval]:
        """pass@1 per difficulty, from the lowest to the highest."""
        return self._by(lambda row: row.difficulty, DIFFICULTIES)

    def by_topic(self) -> dict[str, Interval]:
        """pass@1 per topic, by name."""
        return self._by(lambda row: row.topic, sorted({row.topic for row in self.rows}))

    def _by(self, key: Callable[[ProblemResult], str], names: Iterable[str]) -> dict[str, Interval]:
        found = {name: self.pass_at(1, lambda row, name=name: key(row) == name) for name in names}
        return {name: interval for name, interval in found.items() if interval is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the rows, and the figures derived from them (which `from_dict` derives again)."""
        derived = {
            "success_rate": _interval(self.success),
            "pass_at": {str(k): _interval(self.pass_at(k)) for k in self.k},
            "by_difficulty": {name: asdict(interval) for name, interval in self.by_difficulty().items()},
            "by_topic": {name: asdict(interval) for name, interval in self.by_topic().items()},
            "truncated_share": self.truncated_share,
            "infra_failures": self.infra_failures,
            "verdict": verdict(self.success),
        }
        stored = {"model": self.model, "protocol": asdict(self.protocol), "k": list(self.k), "failures": dict(self.failures)}
        stored |= {"generate_s": self.generate_s, "execute_s": self.execute_s, "grade": self.grade, "notes": list(self.notes)}
        return stored | derived | {"rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EvalResult:
        return cls(
            model=data["model"],
            protocol=Protocol(**data["protocol"]),
            rows=tuple(ProblemResult(**row) for row in data["rows"]),
            k=tuple(data["k"]),
            failures=dict(data["failures"]),
            generate_s=data["generate_s"],
            execute_s=data["execute_s"],
            grade=data["grade"],
            notes=tuple(data["notes"]),
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> EvalResult:
        """Read a saved result; raises UsageError if the file is not one."""
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is not a saved evaluation", f"{type(error).__name__}: {error}", "make one with rlaif evaluate --json") from None

    def lines(self) -> list[str]:
        """The result for people, one line each."""
        out = [f"{self.model} on {self.protocol.problems} ({self.protocol.split}): {verdict(self.success)}"]
        out += [f"  pass@{k}  {interval}" for k in self.k if k > 1 and (interval := self.pass_at(k)) is not None]
        out += [f"  {name:<8} {interval}  ({interval.count} problems)" for name, interval in self.by_difficulty().items()]
        topics = {name: interval for name, interval in self.by_topic().items() if name}
        if len(topics) > 1:
            width = max(map(len, topics))
            out += ["  by topic:", *(f"    {name:<{width}} {interval}  ({interval.count} problems)" for name, interval in topics.items())]
        if self.failures:
            worst = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in Counter(self.failures).most_common(4))
            out.append(f"  failures: {worst}")
        if self.truncated_share:
            out.append(f"  cut off at the token limit: {self.truncated_share:.0%} of samples")
        if self.infra_failures:
            out.append(f"  not judged (the sandbox's fault, not the model's): {self.infra_failures} samples")
        out.append(f"  {self.generate_s:.1f} s generating, {self.execute_s:.1f} s running tests (sandbox grade {self.grade})")
        return out + [f"  {note}" for note in self.notes]


def verdict(rate: Interval | None) -> str:
    """The success rate in words: over 70% excellent, 40 to 70% good progress, under 40% more episodes needed."""
    if rate is None:
        return "nothing could be judged"
    word = _word(rate.value)
    unsure = "" if _word(rate.low) == _word(rate.high) else f"; with {rate.count} problems it could also be called {_others(rate, word)}"
    return f"success rate {rate.value:.1%} ({rate.level:.0%} interval {rate.low:.1%} to {rate.high:.1%}): {word}{unsure}"


def _word(share: float) -> str:
    return "excellent" if share > 0.7 else "good progress" if share >= 0.4 else "more episodes needed"


def _others(rate: Interval, word: str) -> str:
    return " or ".join(dict.fromkeys(other for other in (_word(rate.low), _word(rate.high)) if other != word))


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return asdict(interval) if interval is not None else None
