"""One HTML file per run: written from the first episode on, rebuilt as the run goes on, complete in itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from rlaif.report.collect import BANDS, MAX_TEXT, OUTCOMES, Collector
from rlaif.report.evaluations import held_out_view
from rlaif.report.intervals import trend_intervals
from rlaif.report.page import data_block, raw_data_block, render
from rlaif.runs.directory import RunDir
from rlaif.runs.files import write_text_atomic
from rlaif.runs.metrics import METRICS, describe, format_value

CHUNK = 200
"""Rollouts in one data block: what the page parses to show one of them."""
SCRIPTS = ("highlight.js", "charts.js", "detail.js", "compare.js", "browser.js", "main.js")
CHARTS = (
    "reward_mean",
    "pass_rate",
    "start_kl",
    "approx_kl",
    "ref_kl",
    "entropy",
    "completion_tokens_mean",
    "judge_auroc",
    "skipped_group_share",
    "tokens_per_s",
)
"""Shown at once, the reward bands among them; every other figure is a click away."""
_TREND = ("start_kl", "approx_kl", "ref_kl", "entropy")
_TIMES = ("sample_s", "feedback_s", "update_s", "eval_s", "save_s")


def build_report(run_dir: Path | str, out: Path | None = None, *, max_bytes: int = 24 * 2**20) -> Path:
    """Write the report of a run and return its path (default: report.html in the run). `max_bytes` bounds the answers whose code goes in.

    Raises UsageError if there is no run there, RunFailed if the file cannot be written.
    """
    writer = ReportWriter(RunDir.open(run_dir), out, max_bytes=max_bytes)
    writer.write()
    return writer.path


class ReportWriter:
    """The report of a run that goes on. It reads only what is new, and takes at most `share` of the run's time."""

    def __init__(self, run: RunDir, out: Path | None = None, *, max_bytes: int = 24 * 2**20, share: float = 0.03) -> None:
        self.run = run
        self.path = out or run.report_path
        self.share = share
        self._collector = Collector(run, max_bytes)
        self._next = 0.0

    def update(self) -> str | None:
        """Rebuild unless that would cost the run too much of its time. A report that fails must not end a training: the reason is returned."""
        began = time.monotonic()
        if began < self._next:
            return None
        try:
            self.write()
        except Exception as error:
            self._next = began + 60
            return f"The report could not be written: {error}"
        done = time.monotonic()
        self._next = done + (done - began) / self.share
        return None

    def write(self) -> None:
        self._collector.update()
        write_text_atomic(self.path, "".join(self._pieces()))

    def _pieces(self) -> Iterator[str]:
        data = self._collector
        context, payload = _view(self.run, data)
        blocks = [data_block(payload, "report-data"), *_chunks(data)]
        return render("report.html.j2", SCRIPTS, context, blocks)


def _chunks(data: Collector) -> Iterator[Markup]:
    for start in range(0, len(data.columns["episode"]), CHUNK):
        kept = [f'"{number}":{data.details[number]}' for number in range(start, start + CHUNK) if number in data.details]
        if kept:
            yield raw_data_block("{" + ",".join(kept) + "}", f"chunk-{start // CHUNK}", "chunk")


def _view(run: RunDir, data: Collector) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template shows, and what the script gets."""
    status = run.read_json("status.json")
    config = run.read_config()
    series = series_of(data)
    rollouts = len(data.columns["episode"])
    held_out = held_out_view(run)
    episode_s = median(times) if (times := [row["episode_s"] for row in data.metrics if row.get("episode_s")]) else 20.0
    running = status.get("state") == "running"
    episode = status.get("episode") or (series["episodes"][-1] if series["episodes"] else 0)
    context = {
        "title": run.path.resolve().name,
        "status": {
            "state": status.get("state", "unknown"),
            "message": status.get("message", ""),
            "episode": episode,
            "episodes": status.get("episodes"),
        },
        "config": config,
        "settings": flat(config),
        "environment": flat(run.read_json("env.json")),
        "held_out": held_out,
        "tiles": _tiles(series, held_out),
        "alarms": [{"episode": 0, "kind": "alarm", "message": ""} | alarm for alarm in run.iter_alarms() if isinstance(alarm, dict)],
        "cost": _cost(run, data),
        "overlap": overlap_of(run),
        "rollouts": rollouts,
        "kept": len(data.details),
        "cap_mb": data.max_bytes // 2**20,
        "max_text": MAX_TEXT,
        "glossary": METRICS,
        "logged": {name for row in data.metrics for name in row},
        "built": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        "refresh_s": round(min(120, max(10, episode_s))) if running else None,
    }
    payload = {
        "run": {"name": context["title"], "running": running, "refresh_s": context["refresh_s"], "built": time.time(), "episode_s": episode_s},
        "series": series,
        "charts": [name for name in CHARTS if name in series["values"]],
        "metrics": {name: _metric(name) for name in series["values"]},
        "bands": {"episodes": list(data.bands), "names": BANDS, "counts": list(data.bands.values())},
        "times": [name for name in _TIMES if name in series["values"]],
        "held_out": [{**point, "episode": _place(point, episode)} for point in held_out["points"]] if held_out else [],
        "alarms": [{"episode": alarm.get("episode"), "kind": alarm.get("kind", "")} for alarm in context["alarms"]],
        "problems": [_problem(row) for row in data.problems],
        "outcomes": OUTCOMES,
        "columns": data.columns,
        "chunk": CHUNK,
        "kept": len(data.details),
    }
    return context, payload


def series_of(data: Collector) -> dict[str, Any]:
    """Every logged figure by episode, with its interval where the completions give one, or where the run logged `_low` and `_high` itself."""
    rows = {row["episode"]: row for row in data.metrics}
    episodes = sorted(rows.keys() | data.stats.keys())
    names = list(dict.fromkeys([*CHARTS, *(name for row in data.metrics for name, value in row.items() if _is_number(value))]))
    names += [name for name in dict.fromkeys(name for stats in data.stats.values() for name in stats) if name not in names]
    values: dict[str, list[float | None]] = {}
    low: dict[str, list[float | None]] = {}
    high: dict[str, list[float | None]] = {}
    trends: list[str] = []
    for name in names:
        if name == "episode" or (name.endswith(("_low", "_high")) and name.rpartition("_")[0] in names):
            continue
        found = [_at(name, rows.get(episode, {}), data.stats.get(episode, {})) for episode in episodes]
        if all(value is None for value, _, _ in found):
            continue
        if name == "approx_kl" and not any(value for value, _, _ in found):
            continue  # with one step a batch it is 0 by definition, which says nothing: start_kl tells how far the policy moved
        values[name] = [value for value, _, _ in found]
        if any(bottom is not None for _, bottom, _ in found):
            low[name], high[name] = [bottom for _, bottom, _ in found], [top for _, _, top in found]
        elif name in _TREND and any(bands := trend_intervals(values[name])):
            # The run logs one number an episode, so that only its course has an interval; the page says so.
            low[name] = [_round(max(0.0, band[0])) if band else None for band in bands]
            high[name] = [_round(band[1]) if band else None for band in bands]
            trends.append(name)
    return {"episodes": episodes, "values": values, "low": low, "high": high, "trends": trends}


def _at(name: str, row: dict[str, Any], stats: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    mean, interval = stats.get(name, (None, None))
    logged = row.get(name)
    value = logged if _is_number(logged) else mean
    low, high = interval or (row.get(f"{name}_low"), row.get(f"{name}_high"))
    return _round(value), _round(low), _round(high)


def _tiles(series: dict[str, Any], held_out: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The figures at the top: where the run began and where it is, each the mean of a few episodes so that one lucky batch does not speak."""
    tiles = []
    for name in ("reward_mean", "pass_rate", "held_out_pass_rate", "judge_auroc", "start_kl", "approx_kl", "entropy", "completion_tokens_mean"):
        present = [value for value in series["values"].get(name, []) if value is not None]
        if not present:
            continue
        few = max(1, min(5, len(present) // 3))
        first, last = sum(present[:few]) / few, sum(present[-few:]) / few
        metric = describe(name)
        same = format_value(name, first) == format_value(name, last)  # no colour for a change that the tile itself does not show
        change = "flat" if metric.better is None or same else "better" if (last > first) == (metric.better == "up") else "worse"
        tiles.append(
            {
                "title": metric.title,
                "first": format_value(name, first),
                "last": format_value(name, last),
                "change": change,
                "few": few,
                "meaning": metric.meaning,
            }
        )
    return tiles[: 4 if held_out else 5]


def overlap_of(run: RunDir) -> dict[str, Any] | None:
    """What training gave away of the held-out problems; None where the run does not say, or held none out."""
    found = run.read_json("overlap.json")
    return found if found.get("evaluation") and {"contaminated", "training", "share"} <= found.keys() else None


def _cost(run: RunDir, data: Collector) -> dict[str, Any]:
    """Time and judge, in totals. Judge calls as the run logged them, or as counted from the rollouts."""
    total = {
        name: sum(row.get(name) or 0.0 for row in data.metrics)
        for name in (*_TIMES, "episode_s", "judge_calls", "judge_cached", "judge_tokens", "judge_spend_usd")
    }
    for name, seconds in run.read_json("end.json").items():  # evaluating and saving after the last episode
        if name in _TIMES and _is_number(seconds):
            total[name] += seconds
    parts = [{"name": name, "title": describe(name).title, "seconds": total[name]} for name in _TIMES if total[name] > 0]
    known = sum(part["seconds"] for part in parts)
    tokens = sum(length * sum(counts) for length, counts in _lengths(data))
    logged = any("judge_calls" in row for row in data.metrics)
    return {
        "parts": parts,
        "known_s": known,
        "total_s": total["episode_s"] + total["eval_s"] + total["save_s"] if total["episode_s"] else known,
        "episodes": len(data.metrics),
        "tokens": round(tokens),
        "judge_calls": round(total["judge_calls"]) if logged else data.judge_calls,
        "judge_cached": round(total["judge_cached"]),
        "judge_tokens": round(total["judge_tokens"]) or data.judge_tokens,
        "spend_usd": total["judge_spend_usd"],
        "priced": any("judge_spend_usd" in row for row in data.metrics),
    }


def _lengths(data: Collector) -> Iterator[tuple[float, list[int]]]:
    for episode, stats in data.stats.items():
        if "completion_tokens_mean" in stats:
            yield stats["completion_tokens_mean"][0], data.bands[episode]


def _problem(row: dict[str, Any]) -> dict[str, Any]:
    tests = [
        [test.get("role", ""), _short(test.get("input", "")), _short(test.get("expected", "")), test.get("form", "call")]
        for test in row.get("tests", ())
    ]
    shown = {name: row.get(name, "") for name in ("id", "prompt", "signature", "topic", "source")}
    return {
        **shown,
        "prompt": _short(shown["prompt"]),
        "difficulty": row.get("difficulty", "easy"),
        "reference": _short(row.get("reference") or ""),
        "tests": tests,
    }


def _metric(name: str) -> dict[str, Any]:
    metric = describe(name)
    return {"title": metric.title, "meaning": metric.meaning, "unit": metric.unit, "better": metric.better, "group": metric.group}


def _place(point: dict[str, Any], last_episode: int) -> int:
    """Where an evaluation stands on the axis of episodes: before and after the warm start both at 0."""
    return point["episode"] if point["episode"] is not None else last_episode if point["name"] == "after" else 0


def flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and texts."""
    if isinstance(values, dict):
        return [pair for key, value in values.items() for pair in flat(value, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(values, list):
        values = " ".join(str(value) for value in values)
    return [(prefix, "–" if values is None else str(values))]


def _short(text: str, limit: int = 4000) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… [{len(text) - limit:,} more characters in problems.jsonl]"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
