"""The held-out evaluations of a run as the report shows them: a curve, a paired before and after, and which problems changed sides."""

from __future__ import annotations

from typing import Any

from rlaif.errors import UsageError
from rlaif.evals.compare import compare, summary
from rlaif.evals.passk import Paired
from rlaif.evals.result import EvalResult, verdict
from rlaif.runs.directory import RunDir

_LABELS = {"before": ("Before training", "before"), "after_sft": ("After the warm start", "warm start"), "after": ("After training", "after")}


def read_evaluations(run: RunDir) -> dict[str, EvalResult]:
    """The evaluations that can be read, in the order in which they happened."""
    found = {}
    for name, data in run.evaluations().items():
        try:
            found[name] = EvalResult.from_dict(data)
        except (KeyError, TypeError):  # written by another version, or by hand: the report does without it
            continue
    return found


def held_out_view(run: RunDir) -> dict[str, Any] | None:
    """Everything of the held-out section, or None before the first evaluation."""
    results = read_evaluations(run)
    points = [_point(name, result) for name, result in results.items() if result.success is not None]
    if not points:
        return None
    names = list(results)
    first, last = results[names[0]], results[names[-1]]
    view: dict[str, Any] = {"points": points, "verdict": verdict(last.success), "problems": len(last.judged), "protocol": _protocol(last), "rows": []}
    if len(names) == 1:
        return view
    view |= paired_view(first, last)
    if "after_sft" in results and len(names) > 2 and names[0] == "before":
        # What the warm start gave and what RL gave are two claims; they are shown apart.
        view["parts"] = [part for part in (_part("Warm start", first, results["after_sft"]), _part("RL", results["after_sft"], last)) if part]
    return view


def paired_view(first: EvalResult, last: EvalResult) -> dict[str, Any]:
    """The comparison of two results, or why they cannot be compared."""
    try:
        comparison = compare(first, last)
    except UsageError as error:
        return {"problem": f"{error.what}: {error.why}"}
    old = {row.id: row for row in first.judged}
    better = [row for row in last.judged if row.id in old and row.rate > old[row.id].rate]
    worse = [row for row in last.judged if row.id in old and row.rate < old[row.id].rate]
    return {
        "summary": summary(comparison.overall),
        "overall": _row("All problems", comparison.overall),
        "settled": comparison.overall.settled,
        "p_value": comparison.overall.p_value,
        "left_out": comparison.left_out,
        "rows": [_row("All problems", comparison.overall), *(_row(name.capitalize(), item) for name, item in comparison.by_difficulty.items())],
        "topics": _topics(first, last),
        "better": [_change(old[row.id], row) for row in better],
        "worse": [_change(old[row.id], row) for row in worse],
    }


def _point(name: str, result: EvalResult) -> dict[str, Any]:
    rate = result.success
    assert rate is not None
    episode = int(name.removeprefix("episode-")) if name.startswith("episode-") else None
    label, short = _LABELS.get(name) or (f"Episode {episode}", f"ep {episode}")
    return {
        "name": name,
        "label": label,
        "short": short,
        "episode": episode,
        "value": rate.value,
        "low": rate.low,
        "high": rate.high,
        "count": rate.count,
    }


def _row(label: str, item: Paired) -> dict[str, Any]:
    gap = item.difference
    return {
        "label": label,
        "before": item.before,
        "after": item.after,
        "points": 100 * gap.value,
        "low": 100 * gap.low,
        "high": 100 * gap.high,
        "wins": item.wins,
        "losses": item.losses,
        "count": gap.count,
    }


def _part(label: str, before: EvalResult, after: EvalResult) -> dict[str, Any] | None:
    try:
        return _row(label, compare(before, after).overall)
    except UsageError:
        return None


def _topics(first: EvalResult, last: EvalResult) -> list[dict[str, Any]]:
    """Per topic, without intervals: with a dozen problems each they would span the page."""
    before = first.by_topic()
    rows = [
        {"label": name, "before": before[name].value, "after": rate.value, "count": rate.count}
        for name, rate in last.by_topic().items()
        if name in before
    ]
    return sorted(rows, key=lambda row: row["before"] - row["after"])


def _change(old: Any, new: Any) -> dict[str, Any]:
    return {"id": new.id, "difficulty": new.difficulty, "before": f"{old.passed}/{old.samples}", "after": f"{new.passed}/{new.samples}"}


def _protocol(result: EvalResult) -> str:
    rule = result.protocol
    how = "greedy" if rule.greedy else f"{rule.samples} samples at temperature {rule.temperature:g}"
    return f"{rule.problems}, {rule.split} split, {how}, at most {rule.max_new_tokens} tokens, seed {rule.seed}"
