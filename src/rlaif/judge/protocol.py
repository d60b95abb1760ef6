"""The one protocol of all judges: a batch of (problem, code) in, one report each out, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from rlaif.judge.sanitise import Refusal
from rlaif.types import JudgeReport, Problem


class JudgeItem(NamedTuple):
    """One program to be judged against the problem it answers. `code` is as the policy wrote it; judges sanitise it themselves."""

    problem: Problem
    code: str


@runtime_checkable
class Judge(Protocol):
    """Anything that believes, item by item, how likely code is to be right.

    `score` never raises for one bad item: what the code provoked is `refused`, what the judge itself could not do is `error`.
    """

    name: str

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]: ...


def refused_report(refusal: Refusal, judge: str) -> JudgeReport:
    """The report for code that no judge is asked about. `error` starts with the refusal's kind, which the reward reads."""
    return JudgeReport(score=None, error=f"{refusal.kind}: {refusal.why}", refused=True, judge=judge, reasons=(refusal.why,))


def failed_report(why: str, judge: str, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> JudgeReport:
    """The report for a judgement that failed for the judge's own reasons: no score, and the sample leaves the batch."""
    return JudgeReport(score=None, error=why, judge=judge, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
