"""Before and after, measured the same way: the paired difference, its interval, the sign test, and what that means in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlaif.errors import BelowThreshold, UsageError
from rlaif.evals.passk import Paired, paired
from rlaif.evals.result import EvalResult, ProblemResult, verdict
from rlaif.types import DIFFICULTIES


@dataclass(frozen=True)
class Comparison:
    """Two results on the same problems by the same protocol."""

    before: EvalResult
    after: EvalResult
    overall: Paired
    by_difficulty: dict[str, Paired]
    by_topic: dict[str, Paired]
    """By name; too few problems each for a sentence, so it is in the JSON and not among `lines`."""
    left_out: int = 0
    """Problems that one of the two could not judge."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": self.before.model,
            "after": self.after.model,
            "overall": asdict(self.overall) | {"settled": self.overall.settled},
            "by_difficulty": {name: asdict(item) for name, item in self.by_difficulty.items()},
            "by_topic": {name: asdict(item) for name, item in self.by_topic.items()},
            "left_out": self.left_out,
            "words": self.lines(),
        }

    def lines(self) -> list[str]:
        """For people: the sentence first, then the parts."""
        out = [summary(self.overall), f"  now: {verdict(self.after.success)}"]
        for name, item in self.by_difficulty.items():
            out.append(f"  {name:<8} {item.before:.1%} -> {item.after:.1%}  ({item.wins} better, {item.losses} worse)")
        if self.left_out:
            out.append(f"  {self.left_out} problems could not be judged on both sides and are left out")
        return out


def summary(item: Paired) -> str:
    """One honest sentence: a difference whose interval holds zero is not called one."""
    gap = item.difference
    points = f"{100 * gap.value:+.1f} points ({gap.level:.0%} interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    numbers = f"{item.before:.1%} -> {item.after:.1%}, {points}, {item.wins} problems better, {item.losses} worse, sign test p={item.p_value:.3g}"
    if not item.settled:
        return f"No clear change: {numbers}. The interval holds zero: more problems, samples or episodes would tell."
    return f"{'Better' if gap.value > 0 else 'Worse'}: {numbers}."


def compare(before: EvalResult, after: EvalResult) -> Comparison:
    """Pair the problems of two results. Raises UsageError unless both were measured by the same protocol on the same problems."""
    if before.protocol != after.protocol:
        first, second = asdict(before.protocol), asdict(after.protocol)
        unlike = ", ".join(f"{key} {first[key]!r} and {second[key]!r}" for key in first if first[key] != second[key])
        raise UsageError("These two evaluations cannot be compared", f"they differ in {unlike}", "evaluate both models with the same flags")
    if {row.id for row in before.rows} != {row.id for row in after.rows}:
        raise UsageError("These two evaluations cannot be compared", "they are about different problems", "evaluate both models on the same problems")
    first = {row.id: row for row in before.judged}
    both = [(first[row.id], row) for row in after.judged if row.id in first]
    if not both:
        raise UsageError("These two evaluations cannot be compared", "no problem was judged on both sides", "run `rlaif doctor`")

    def parts(key: Callable[[ProblemResult], str], names: Iterable[str]) -> dict[str, Paired]:
        rows = {name: [(old.rate, new.rate) for old, new in both if key(old) == name] for name in names}
        return {name: paired([old for old, _ in rates], [new for _, new in rates]) for name, rates in rows.items() if rates}

    return Comparison(
        before,
        after,
        paired([old.rate for old, _ in both], [new.rate for _, new in both]),
        parts(lambda row: row.difficulty, DIFFICULTIES),
        parts(lambda row: row.topic, sorted({old.topic for old, _ in both if old.topic})),
        left_out=len(before.rows) - len(both),
    )


def compare_with_controls(base: EvalResult, others: Mapping[str, EvalResult]) -> list[dict[str, Any]]:
    """One row per control (warm start alone, rejection sampling, the trained model), each paired with the same base."""
    paired_with_base = {name: compare(base, result).overall for name, result in others.items()}
    return [{"name": name, **asdict(item), "settled": item.settled, "words": summary(item)} for name, item in paired_with_base.items()]


def fail_under(result: EvalResult, threshold: float) -> None:
    """Raises BelowThreshold (exit code 4) if the success rate is below `threshold`, a share in [0, 1]."""
    rate = result.success
    if rate is None or rate.value < threshold:
        raise BelowThreshold(f"The success rate is below {threshold:.1%}", verdict(rate), "train for more episodes, or lower --fail-under")
