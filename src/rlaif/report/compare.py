"""Two or more runs on one page: what each reached, where their settings differ, and their curves on one axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.errors import UsageError
from rlaif.report.build import CHARTS, flat, series_of
from rlaif.report.collect import Collector
from rlaif.report.evaluations import paired_view, read_evaluations
from rlaif.report.page import data_block, render
from rlaif.runs.directory import RunDir
from rlaif.runs.files import write_text_atomic
from rlaif.runs.metrics import describe, format_value

SCRIPTS = ("highlight.js", "charts.js", "comparison.js")
_IGNORED = ("output_dir", "resume", "overwrite", "dry_run", "track")
_FIGURES = ("reward_mean", "pass_rate", "held_out_pass_rate", "judge_auroc", "start_kl", "entropy", "completion_tokens_mean", "tokens_per_s")


def compare_report(first: Path | str, second: Path | str, out: Path | None = None, *more: Path | str) -> Path:
    """Write a page that compares runs and return its path (default: compare.html beside the first run).

    Raises UsageError if one of them is no run, or if they are the same.
    """
    runs = [RunDir.open(path) for path in (first, second, *more)]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UsageError("A run cannot be compared with itself", str(first), "give two different run folders: rlaif report A B")
    path = out or runs[0].path.resolve().parent / "compare.html"
    context, payload = _view(runs)
    write_text_atomic(path, "".join(render("compare.html.j2", SCRIPTS, context, [data_block(payload, "report-data")])))
    return path


def _view(runs: list[RunDir]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = _names(runs)
    sides, series = [], []
    for run, name in zip(runs, names, strict=True):
        collector = Collector(run, max_bytes=0)
        collector.update()
        curves = series_of(collector)
        series.append(curves)
        evaluations = read_evaluations(run)
        sides.append(
            {
                "name": name,
                "status": run.read_json("status.json"),
                "evaluations": evaluations,
                "last": {key: _last(curves, key) for key in _FIGURES},
                "episodes": len(curves["episodes"]),
            }
        )
    shared = [key for key in CHARTS if sum(key in curves["values"] for curves in series) > 0]
    context = {
        "title": " and ".join(names),
        "sides": sides,
        "figures": [
            (describe(key), [format_value(key, side["last"][key]) for side in sides])
            for key in _FIGURES
            if any(side["last"][key] is not None for side in sides)
        ],
        "held_out": [_held_out(side) for side in sides],
        "paired": _between(sides),
        "differences": _differences(runs),
    }
    payload = {
        "names": names,
        "runs": series,
        "charts": shared,
        "metrics": {key: {"title": describe(key).title, "unit": describe(key).unit, "meaning": describe(key).meaning} for key in shared},
    }
    return context, payload


def _names(runs: list[RunDir]) -> list[str]:
    """Folder names, or paths where two folders share a name."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _last(curves: dict[str, Any], name: str) -> float | None:
    """The mean of the last five episodes or fewer."""
    present = [value for value in curves["values"].get(name, []) if value is not None][-5:]
    return sum(present) / len(present) if present else None


def _held_out(side: dict[str, Any]) -> dict[str, Any]:
    results = list(side["evaluations"].values())
    first, last = (results[0].success, results[-1].success) if results else (None, None)
    return {"name": side["name"], "before": first, "after": last if len(results) > 1 else None}


def _between(sides: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each later run against the first, problem by problem, where both were evaluated at their end."""
    ends = [(side["name"], list(side["evaluations"].values())[-1] if side["evaluations"] else None) for side in sides]
    (base_name, base), *others = ends
    views = []
    for name, result in others:
        if base is None or result is None:
            views.append({"names": (base_name, name), "problem": "One of them has no held-out evaluation yet."})
        else:
            views.append({"names": (base_name, name), **paired_view(base, result)})
    return views


def _differences(runs: list[RunDir]) -> list[tuple[str, list[str]]]:
    settings = [dict(flat(run.read_config())) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [(key, [one.get(key, "–") for one in settings]) for key in keys if key not in _IGNORED]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
