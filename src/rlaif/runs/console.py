"""What a person sees while a run goes on: a live view on a terminal, plain lines anywhere else.

Plain lines tell the run's story so that a log file reads well: "Episode 3/20", the code written, its reward, the average. The live view keeps one
line an episode in the scrollback and redraws the rest below it. NO_COLOR and narrow windows (from 40 columns) are honoured. With `json_mode` stdout
belongs to the result, so prose goes to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.text import Text

from rlaif.config import TrainConfig
from rlaif.runs.live import LiveView
from rlaif.runs.metrics import format_seconds, format_value, verdict
from rlaif.runs.text import printable
from rlaif.types import Rollout

_CODE_LINES = 14


class Console:
    """The run's voice. Use it as a context manager, so that the terminal is given back even when the run fails.

    `live` None decides by the stream: a terminal that can move its cursor gets the live view.
    """

    def __init__(self, *, json_mode: bool = False, live: bool | None = None, file: TextIO | None = None, width: int | None = None) -> None:
        stream = file if file is not None else sys.stderr if json_mode else sys.stdout
        self.rich = RichConsole(file=stream, width=width, highlight=False, soft_wrap=False)
        can_live = self.rich.is_terminal and not self.rich.is_dumb_terminal and self.rich.width >= 40
        self.live = can_live if live is None else live
        self._view: LiveView | None = None
        self._rewards: list[float] = []
        self._started = time.monotonic()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop redrawing and leave the last picture standing. Safe to call twice."""
        if self._view is not None:
            self._view.stop()
            self._view = None

    # -- the run's story -----------------------------------------------------------------------------------------------------------

    def start(self, config: TrainConfig, path: Path | None = None, notes: Mapping[str, str] | None = None, episode: int = 0) -> None:
        """Say what is about to happen: model, algorithm, problems, folder, and `notes` such as {"sandbox": "strong", "device": "cpu"}.

        `episode` is the last finished one when a run is resumed.
        """
        self._started = time.monotonic()
        judge = {"none": "no judge", "embedded": "the embedded judge"}.get(
            config.judge.kind, f"{config.judge.kind} judge {config.judge.model or ''}".strip()
        )
        feedback = {"hybrid": f"tests and {judge}", "ai": judge, "execution": "tests alone"}[config.feedback]
        self._line(Text(f"Training {config.model} with {config.algo.upper()} for {config.episodes} episodes", style="bold"))
        facts = {
            "feedback": feedback,
            "batch": f"{config.batch_size} problems × {config.group_size} answers of at most {config.max_new_tokens} tokens",
            "problems": config.problems,
            **({"run": str(path)} if path else {}),
            **(notes or {}),
        }
        for key, value in facts.items():
            self._line(Text.assemble((f"  {key:<9} ", "dim"), printable(str(value), 1)))
        if episode:
            self._line(Text(f"Going on after episode {episode}/{config.episodes}."))
        if self.live:
            self._view = LiveView(self.rich, config.episodes, episode)
            self._view.start()

    def stage(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """What the run is busy with ("sampling", 12, 64). Shown in the live view only; cheap, so call it as often as you like."""
        if self._view is not None:
            self._view.stage(what if total is None else f"{what} {done}/{total}")

    def episode(self, index: int, total: int, metrics: Mapping[str, Any], best: Rollout | None = None, worst: Rollout | None = None) -> None:
        """One finished episode (the first is 1) with its figures and its best and worst sample."""
        reward = metrics.get("reward_mean")
        if reward is not None and reward == reward:
            self._rewards.append(reward)
        if self._view is not None:
            self._view.episode(index, total, metrics, best, worst)
            return
        figures = ["pass_rate", "start_kl", "tokens_per_s", "episode_s"]
        parts = [f"{_SHORT[name]} {format_value(name, metrics[name])}" for name in figures if metrics.get(name) is not None]
        self._line(Text(""))
        self._line(Text(f"Episode {index}/{total}", style="bold"))
        self._sample("Best answer", best)
        if worst is not None and best is not None and worst.feedback.reward != best.feedback.reward:
            self._sample("Worst answer", worst)
        average = sum(self._rewards) / len(self._rewards) if self._rewards else None
        self._line(Text(f"Average reward: {format_value('reward_mean', reward)} (all episodes: {format_value('reward_mean', average)})"))
        if parts:
            self._line(Text("  " + " · ".join(parts), style="dim"))

    def message(self, text: str, style: str = "") -> None:
        """A sentence for the person watching; it stays in the scrollback."""
        self._line(Text(printable(text), style=style))

    def warning(self, text: str) -> None:
        """Something to look at, such as the monitor's alarm."""
        self._line(Text.assemble(("Warning: ", "bold yellow"), printable(text)))

    def evaluation(self, name: str, rate: float, low: float, high: float, solved: int, total: int, seconds: float | None = None) -> None:
        """A held-out evaluation: `rate` in [0, 1] with its 95% interval, `solved` of `total` problems."""
        took = f", {format_seconds(seconds)}" if seconds is not None else ""
        words = (
            f"{name}: {100 * rate:.1f}% of held-out problems solved ({solved} of {total}; 95% interval {100 * low:.1f} to {100 * high:.1f}%{took})"
        )
        self._line(Text(words, style="bold"))

    def finish(
        self,
        path: Path | None = None,
        before: float | None = None,
        after: float | None = None,
        interval: tuple[float, float] | None = None,
        report: Path | None = None,
    ) -> None:
        """The end in words: held-out success `before` and `after`, both in [0, 1], and the 95% interval of the paired difference."""
        self.close()
        self._line(Text(""))
        self._line(Text(f"Done in {format_seconds(time.monotonic() - self._started)}.", style="bold"))
        if after is not None:
            self._line(Text(change_in_words(before, after, interval)))
        if path is not None:
            self._line(Text(f"Model and logs: {path}"))
        if report is not None:
            self._line(Text(f"Report: {report}"))

    # -- own -----------------------------------------------------------------------------------------------------------------------

    def _line(self, text: Text) -> None:
        self.rich.print(text, soft_wrap=not self.rich.is_terminal)  # a log file is not wrapped at 80 columns

    def _sample(self, title: str, rollout: Rollout | None) -> None:
        if rollout is None:
            return
        self._line(Text(f"{title} to “{printable(rollout.problem.prompt.strip(), 1, 100)}”:"))
        code = printable(rollout.completion.code.strip() or rollout.completion.text.strip() or "(nothing)", _CODE_LINES)
        for line in code.split("\n"):
            self._line(Text(f"    {line}"))
        reasons = "; ".join(printable(reason, 1, 120) for reason in rollout.feedback.reasons[:2])
        self._line(Text(f"Reward: {format_value('reward_mean', rollout.feedback.reward)}" + (f" ({reasons})" if reasons else "")))


_SHORT = {"pass_rate": "pass rate", "start_kl": "KL", "tokens_per_s": "tokens/s", "episode_s": "took"}


def change_in_words(before: float | None, after: float, interval: tuple[float, float] | None = None) -> str:
    """ "Held-out success went from 28.0% to 41.0% (+13.0 points, 95% interval +6.1 to +19.9): good progress." """
    if before is None:
        return f"Held-out success: {100 * after:.1f}%: {verdict(after)}."
    points = 100 * (after - before)
    within = ""
    doubt = ""
    if interval is not None:
        within = f", 95% interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
        doubt = " The interval includes zero, so this may be chance." if interval[0] <= 0 <= interval[1] else ""
    return f"Held-out success went from {100 * before:.1f}% to {100 * after:.1f}% ({points:+.1f} points{within}): {verdict(after)}.{doubt}"
