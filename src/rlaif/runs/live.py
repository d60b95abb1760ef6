"""The live view of a run on a terminal: progress, figures with sparklines, the best and the worst answer of the episode."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from rlaif.runs.metrics import format_seconds, format_value
from rlaif.runs.text import printable, sparkline
from rlaif.types import Rollout

_FIGURES = (("reward_mean", "reward"), ("pass_rate", "pass rate"), ("start_kl", "KL"), ("tokens_per_s", "tokens/s"))
_HISTORY = 400


class LiveView:
    """Holds the last figures and redraws them twice a second, so that the clock moves while an episode runs."""

    def __init__(self, console: RichConsole, episodes: int, episode: int = 0) -> None:
        self.console = console
        self.episodes, self.index, self.first = episodes, episode, episode
        self.history: dict[str, deque[float | None]] = {name: deque(maxlen=_HISTORY) for name, _ in _FIGURES}
        self.spend_usd = 0.0
        self.judge_calls = 0
        self.best: Rollout | None = None
        self.worst: Rollout | None = None
        self.doing = "starting"
        self.began = time.monotonic()
        self.durations: deque[float] = deque(maxlen=10)
        self.last_end = self.began
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(self, console=console, refresh_per_second=2, redirect_stdout=True, redirect_stderr=True, vertical_overflow="crop")

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self.doing = ""
        self._live.stop()

    def stage(self, what: str) -> None:
        self.doing = what

    def episode(self, index: int, total: int, metrics: Mapping[str, Any], best: Rollout | None, worst: Rollout | None) -> None:
        """Take in a finished episode; its one line goes to the scrollback."""
        now = time.monotonic()
        self.durations.append(now - self.last_end)
        self.last_end = now
        self.index, self.episodes, self.best, self.worst = index, total, best, worst
        for name, _ in _FIGURES:
            self.history[name].append(metrics.get(name))
        self.spend_usd += metrics.get("judge_spend_usd") or 0.0
        self.judge_calls += int(metrics.get("judge_calls") or 0)
        parts = [f"{title} {format_value(name, metrics[name])}" for name, title in _FIGURES if metrics.get(name) is not None]
        line = Text.assemble((f"Episode {index:>{len(str(total))}}/{total}  ", "bold"), " · ".join(parts))
        self.console.print(line, no_wrap=True, overflow="ellipsis")
        self._live.refresh()

    def seconds_left(self) -> float | None:
        """By the mean of the last ten episodes, less what the running one has used."""
        if not self.durations or self.index >= self.episodes:
            return None
        mean = sum(self.durations) / len(self.durations)
        return max(0.0, mean * (self.episodes - self.index) - (time.monotonic() - self.last_end))

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, console.height
        yield Text("")
        yield self._progress(width)
        yield self._figures(width)
        # The samples get what is left of the window: a live view taller than the window would scroll and smear.
        room = height - 10
        samples = [("best", self.best), ("worst", self.worst)]
        if self.worst is not None and self.best is not None and self.worst.completion == self.best.completion:
            samples.pop()
        shown = [(title, rollout) for title, rollout in samples if rollout is not None]
        if not shown or room < 4:
            return
        if width >= 100 and len(shown) == 2:
            grid = Table.grid(expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(*(self._sample(title, rollout, min(room - 3, 12)) for title, rollout in shown))
            yield grid
            return
        lines = min(10, room // len(shown) - 3)
        if lines < 1:
            shown, lines = shown[:1], min(10, room - 3)
        yield Group(*(self._sample(title, rollout, lines) for title, rollout in shown))

    def _progress(self, width: int) -> RenderableType:
        elapsed = format_seconds(time.monotonic() - self.began)
        left = self.seconds_left()
        times = f"{elapsed}" + (f", {format_seconds(left)} left" if left is not None else "")
        # Between episodes the running one is the next; its number tells more than that of the last finished one.
        title = f"Episode {min(self.index + 1, self.episodes)}/{self.episodes}"
        grid = Table.grid(padding=(0, 1))
        if width < 70:
            grid.add_row(Text(title, style="bold"), Text(times, style="dim"))
        else:
            bar = ProgressBar(
                total=max(1, self.episodes), completed=self.index, width=min(40, width - 50), complete_style="cyan", finished_style="green"
            )
            grid.add_row(Text(title, style="bold"), bar, Text(times, style="dim"))
        if not self.doing:
            return grid
        self._spinner.update(text=Text(self.doing, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(grid, self._spinner)

    def _figures(self, width: int) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        spark = max(8, min(40, width - 28))
        for name, title in _FIGURES:
            values = list(self.history[name])
            if not any(value is not None for value in values):
                continue
            low = 0.0 if name in ("reward_mean", "pass_rate") else None
            figure = Text(format_value(name, values[-1]), style="bold")
            grid.add_row(Text(title, style="dim"), figure, Text(sparkline(values, spark, low), style="cyan"))
        if self.judge_calls:
            cost = f"{self.judge_calls:,} calls" + (f", ${self.spend_usd:.2f}" if self.spend_usd else "")
            grid.add_row(Text("judge", style="dim"), Text(cost, style="bold"), Text(""))
        return grid

    def _sample(self, title: str, rollout: Rollout, lines: int) -> RenderableType:
        reward = rollout.feedback.reward
        colour = {"good": "green", "okay": "yellow", "poor": "red"}.get(rollout.feedback.band or "", "dim")
        code = printable(rollout.completion.code.strip() or rollout.completion.text.strip() or "(nothing)", max(1, lines - 1), 200)
        body = Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=False)
        prompt = Text(printable(rollout.problem.prompt.strip(), 1, 160), style="italic", no_wrap=True, overflow="ellipsis")
        reason = printable(rollout.feedback.reasons[0], 1, 200) if rollout.feedback.reasons else None
        heading = Text(f"{title}: reward {format_value('reward_mean', reward)}", style=colour)
        footer = Text(reason, no_wrap=True, overflow="ellipsis") if reason else None
        return Panel(Group(prompt, body), title=heading, title_align="left", subtitle=footer, subtitle_align="left", border_style=colour)
