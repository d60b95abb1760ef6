"""How good a judge is, on labelled programs: AUROC, pair accuracy, ECE and Brier score, in all, per difficulty and per kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from rlaif.judge.calibrate import auroc, brier, ece, pair_accuracy
from rlaif.judge.labelled import Labelled
from rlaif.judge.protocol import Judge, JudgeItem

_CHUNK = 256


def evaluate_judge(judge: Judge, items: Iterable[Labelled]) -> dict[str, dict[str, Any]]:
    """{"all": figures, "easy": ..., "kind:mutant": ...}. Items are streamed; those without a score are counted as `unanswered`."""
    scored: list[tuple[float, Labelled]] = []
    unanswered: list[Labelled] = []
    stream = iter(items)
    while chunk := list(islice(stream, _CHUNK)):
        for report, item in zip(judge.score([JudgeItem(item.problem, item.code) for item in chunk]), chunk, strict=True):
            if report.score is None:
                unanswered.append(item)
            else:
                scored.append((report.score, item))

    def part(keep: Callable[[Labelled], bool]) -> dict[str, Any]:
        return figures([row for row in scored if keep(row[1])]) | {"unanswered": sum(map(keep, unanswered))}

    found = {"all": part(lambda item: True)}
    everything = [item for _, item in scored] + unanswered
    found |= {level: part(lambda item, level=level: item.problem.difficulty == level) for level in sorted({i.problem.difficulty for i in everything})}
    # Mutants are all wrong: their kind is measured against the right programs of every kind.
    wrong_kinds = sorted({item.kind for item in everything if not item.correct})
    return found | {f"kind:{kind}": part(lambda item, kind=kind: item.correct or item.kind == kind) for kind in wrong_kinds}


def figures(scored: Sequence[tuple[float, Labelled]]) -> dict[str, Any]:
    """The figures of some scored programs; NaN where one kind of label is missing."""
    if not scored:
        return {"n": 0, "auroc": float("nan"), "pair_accuracy": float("nan"), "ece": float("nan"), "brier": float("nan")}
    scores, labels = [score for score, _ in scored], [item.correct for _, item in scored]
    return {
        "n": len(scored),
        "auroc": auroc(scores, labels),
        "pair_accuracy": pair_accuracy(scores, labels, [item.problem.id for _, item in scored]),
        "ece": ece(scores, labels),
        "brier": brier(scores, labels),
    }
