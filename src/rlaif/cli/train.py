"""`rlaif train`: flags in, a run directory out. The loop itself is `rlaif.train.loop`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.cli.flags import parse_train
from rlaif.config import TrainConfig
from rlaif.runs import Console

if TYPE_CHECKING:
    from rlaif.train.loop import TrainResult
    from rlaif.train.setup import Hooks

REPORT_EVERY_S = 20.0
"""The report is rebuilt at most this often while the run goes on."""


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    run_training(parse_train(argv, prog="rlaif train"))
    return 0


def run_training(config: TrainConfig, hooks: Hooks | None = None, console: Console | None = None) -> TrainResult:
    """Train with a live console and a report that keeps up, and say at the end what changed."""
    from rlaif.train.loop import train  # torch comes in here, after the flags were found good
    from rlaif.train.setup import Hooks

    console = console or Console()
    reporter = _Reporter(console)
    result = train(config, hooks=replace(hooks or Hooks(), after_episode=reporter), console=console)
    if result.path is None:
        return result
    before, after = result.evaluations.get("before"), result.evaluations.get("after")
    interval = (result.lift.overall.difference.low, result.lift.overall.difference.high) if result.lift else None
    report = reporter.build(result.path)
    console.finish(result.path, before and before.success and before.success.value, after and after.success and after.success.value, interval, report)
    for title, comparison in (("In all", result.lift), ("By reinforcement learning, after the warm start", result.rl_lift)):
        if comparison is not None:
            console.message(f"{title}: " + "\n".join(comparison.lines()))
    return result


class _Reporter:
    """Rebuilds report.html, not more often than every `REPORT_EVERY_S`. A report that cannot be written never ends a run."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, float("-inf")

    def __call__(self, folder: Path) -> None:
        if time.monotonic() - self.last >= REPORT_EVERY_S:
            self.build(folder)
            self.last = time.monotonic()

    def build(self, folder: Path) -> Path | None:
        from rlaif.report import build_report

        try:
            return build_report(folder)
        except OSError as error:
            self.console.warning(f"The report could not be written: {error}")
            return None
