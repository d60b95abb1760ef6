"""`rlaif train`: flags in, a run directory out. The loop itself is `rlaif.train.loop`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.cli.flags import parse_train
from rlaif.config import TrainConfig
from rlaif.runs import Console

if TYPE_CHECKING:
    from rlaif.report import ReportWriter
    from rlaif.train.loop import TrainResult
    from rlaif.train.setup import Hooks


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
    """Keeps report.html up to date while the run goes on; a report that cannot be written is said once and never ends a run."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.writer: ReportWriter | None = None
        self.complained = False

    def __call__(self, folder: Path) -> None:
        self._say(self._writer(folder).update())

    def build(self, folder: Path) -> Path | None:
        """The last word, whatever it costs."""
        try:
            self._writer(folder).write()
        except Exception as error:  # whatever it is, the training is done and its model saved
            self._say(f"The report could not be written: {error}")
            return None
        return self._writer(folder).path

    def _writer(self, folder: Path) -> ReportWriter:
        from rlaif.report import ReportWriter
        from rlaif.runs import RunDir

        if self.writer is None:
            self.writer = ReportWriter(RunDir.open(folder))
        return self.writer

    def _say(self, problem: str | None) -> None:
        if problem and not self.complained:
            self.complained = True
            self.console.warning(problem)
