"""Several judges as one: the worst case, or the mean less the spread (arXiv 2310.02743). Not a plain mean: what fools one member would pay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rlaif.judge.protocol import Judge, JudgeItem, failed_report
from rlaif.types import JudgeReport

Rule = Literal["worst", "mean_minus_spread"]


class EnsembleJudge:
    """Scores with every member. A member that refuses makes the ensemble refuse; one that fails makes it fail: the rest cannot speak for it."""

    def __init__(self, members: Sequence[Judge], rule: Rule = "worst", spread_weight: float = 1.0) -> None:
        if not members:
            raise ValueError("an ensemble needs a member")
        self.members, self.rule, self.spread_weight = tuple(members), rule, spread_weight
        self.name = f"{rule} of {', '.join(member.name for member in members)}"

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]:
        by_member = [member.score(items) for member in self.members]
        return [self._merge(reports) for reports in zip(*by_member, strict=True)]

    def _merge(self, reports: Sequence[JudgeReport]) -> JudgeReport:
        tokens = {"prompt_tokens": sum(r.prompt_tokens for r in reports), "completion_tokens": sum(r.completion_tokens for r in reports)}
        for report in reports:
            if report.refused:
                return JudgeReport(None, reasons=report.reasons, error=report.error, refused=True, judge=self.name, **tokens)
        scores = [report.score for report in reports if report.score is not None]
        if len(scores) < len(reports):
            errors = "; ".join(f"{report.judge}: {report.error}" for report in reports if report.score is None)
            return failed_report(errors, self.name, **tokens)
        # A principle that not every member was asked about is left to those who were.
        names = dict.fromkeys(name for report in reports for name in report.principles)
        principles = {name: self.pool([report.principles[name] for report in reports if name in report.principles]) for name in names}
        mixes = [report.mix for report in reports if report.mix is not None]
        reasons = tuple(f"{report.judge}: {reason}" for report in reports for reason in report.reasons)
        return JudgeReport(
            self.pool(scores),
            principles,
            reasons,
            judge=self.name,
            cached=all(report.cached for report in reports),
            mix=self.pool(mixes) if mixes else None,
            **tokens,
        )

    def pool(self, scores: Sequence[float]) -> float:
        """Worst: the minimum. Otherwise the mean less `spread_weight` standard deviations (of the population), never below 0."""
        if self.rule == "worst":
            return min(scores)
        mean = sum(scores) / len(scores)
        spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
        return max(0.0, mean - self.spread_weight * spread)
