"""Watches a run for the two ways RL from AI feedback goes wrong: the signal dies, or the policy learns to please the judge.

Over-optimisation (Gao et al., arXiv 2210.10760) shows as a judge's score that rises while tests the policy is never rewarded for do
not. Both are measured on the current policy's own samples, so drift of the judge off its calibration data is seen as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from rlaif.judge.calibrate import auroc, auroc_interval

WINDOW = 8
"""Episodes over which slopes are taken."""
FAR_FROM_START = 1.0
"""Nats per token. The run of recipes/rl_only.toml, which gains on held-out problems, ends at 0.8."""
BASELINE = 3
"""Episodes whose order is the yardstick, and as many recent ones are held against it."""
Z = 3.09
"""Of the 99.8% intervals that have to lie apart."""
FEWEST = 5
"""Answers that pass, and answers that fail, from which an order is spoken of."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person should look at. `serious` alarms can stop the run; `best_episode` names the episode before things went wrong."""

    episode: int
    kind: str
    message: str
    serious: bool
    best_episode: int | None = None

    @property
    def advice(self) -> str:
        """The message, and where to go back to."""
        return self.message if self.best_episode is None else f"{self.message} The held-out pass rate was best around episode {self.best_episode}."


@dataclass(slots=True)
class Monitor:
    """Feed it every episode with `observe`; it answers with new alarms. State is JSON (`state_dict`)."""

    samples: deque[list[tuple[float, bool]]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    baseline: list[tuple[float, bool]] = field(default_factory=list)
    pass_rates: list[tuple[int, float]] = field(default_factory=list)
    raised: set[str] = field(default_factory=set)
    seen: int = 0

    def observe(self, episode: int, judged: Sequence[tuple[float, bool]], metrics: dict[str, float]) -> list[Alarm]:
        """`judged`: (judge's score, passed the held-out tests) of this episode's samples; `metrics`: the episode's row."""
        alarms = self._dead_signals(episode, metrics)
        if judged:
            self.seen += 1
            self.samples.append(list(judged))
            self.pass_rates.append((episode, float(np.mean([passed for _, passed in judged]))))
            if self.seen <= BASELINE:
                self.baseline.extend(judged)
            alarms += self._over_optimisation(episode) + self._order(episode)
        new = [alarm for alarm in alarms if alarm.kind not in self.raised]
        self.raised.update(alarm.kind for alarm in new)
        return new

    def best_episode(self) -> int | None:
        """The episode with the highest held-out pass rate, smoothed over three episodes."""
        if not self.pass_rates:
            return None
        rates = np.array([rate for _, rate in self.pass_rates])
        smooth = [rates[max(0, i - 1) : i + 2].mean() for i in range(len(rates))]
        return self.pass_rates[int(np.argmax(smooth))][0]

    def _over_optimisation(self, episode: int) -> list[Alarm]:
        if len(self.samples) < 5:
            return []
        time = np.arange(len(self.samples))
        judge = np.array([np.mean([score for score, _ in batch]) for batch in self.samples])
        tests = np.array([np.mean([passed for _, passed in batch]) for batch in self.samples])
        if np.ptp(judge) < 1e-9:
            return []
        up = stats.linregress(time, judge, alternative="greater")
        apart = stats.linregress(time, judge - tests, alternative="greater")
        # Three conditions, each needed: the judge rises, the gap to the tests rises, and the rise is large enough to matter.
        rise = up.slope * (len(time) - 1)
        if up.pvalue < 0.01 and apart.pvalue < 0.01 and rise > 0.1 and np.polyfit(time, tests, 1)[0] < up.slope / 3:
            text = (
                f"The judge's score rose by {rise:.2f} over {len(time)} episodes while the held-out pass rate did not: "
                "the policy may be pleasing the judge."
            )
            return [Alarm(episode, "over_optimisation", text, True, self.best_episode())]
        return []

    def _order(self, episode: int) -> list[Alarm]:
        """Does the judge still put answers that pass above answers that fail? Its level is no matter: a policy that comes to be right more often
        than the one that the judge was calibrated on makes its beliefs too low, and it may tell right from wrong as well as before."""
        recent = [pair for batch in list(self.samples)[-BASELINE:] for pair in batch]
        if self.seen < 2 * BASELINE or min(_fewer(self.baseline), _fewer(recent)) < FEWEST:
            return []
        low, _ = auroc_interval(*zip(*self.baseline, strict=True), z=Z)
        _, high = auroc_interval(*zip(*recent, strict=True), z=Z)
        if high < low:
            now, start = (auroc(*zip(*pairs, strict=True)) for pairs in (recent, self.baseline))
            text = (
                f"The judge puts an answer that passes the held-out tests above one that fails them in {now:.0%} of recent cases, "
                f"down from {start:.0%} at the start (99.8% intervals apart)."
            )
            return [Alarm(episode, "judge_drift", text, True, self.best_episode())]
        return []

    def _dead_signals(self, episode: int, metrics: dict[str, float]) -> list[Alarm]:
        checks = (
            (
                "no_signal",
                metrics.get("skipped_group_share", 0.0) >= 0.999,
                "All rewards within every group were equal: nothing was learnt. Try easier problems or a higher --temperature.",
            ),
            ("all_truncated", metrics.get("truncated_share", 0.0) > 0.9, "Over 90% of completions were cut off: raise --max-new-tokens."),
            ("kl_runaway", metrics.get("approx_kl", 0.0) > 0.5, "One update moved the policy by over 0.5 nats a token: lower --learning-rate."),
            (
                "far_from_start",
                metrics.get("start_kl", 0.0) > FAR_FROM_START,
                f"The policy is over {FAR_FROM_START:g} nats a token from where it began: what it knew may be going. "
                "Lower --learning-rate or raise --kl-coef.",
            ),
            (
                "entropy_collapse",
                0 <= metrics.get("entropy", 1.0) < 0.02,
                "The policy's entropy is nearly zero: it writes the same answer every time. Lower --learning-rate or raise --entropy-coef.",
            ),
            (
                "judge_gamed",
                metrics.get("judge_probe_score", 0.0) > 0.5 or metrics.get("judge_probe_gain", 0.0) > 0.02,
                "The judge paid a probe: an answer that solves nothing scored above a half, or self-praise raised a wrong one's score.",
            ),
            (
                "judge_errors",
                metrics.get("judge_error_share", 0.0) > 0.2,
                "The judge failed on over 20% of the samples; they were left out. See `rlaif doctor`.",
            ),
            (
                "infra_failures",
                metrics.get("infra_failure_share", 0.0) > 0.2,
                "Over 20% of the samples could not be scored; they were left out. See `rlaif doctor`.",
            ),
        )
        return [Alarm(episode, kind, text, False) for kind, bad, text in checks if bad]

    def state_dict(self) -> dict[str, Any]:
        return {
            "samples": [list(batch) for batch in self.samples],
            "baseline": self.baseline,
            "pass_rates": self.pass_rates,
            "raised": sorted(self.raised),
            "seen": self.seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.samples = deque(([(score, passed) for score, passed in batch] for batch in state["samples"]), maxlen=WINDOW)
        self.baseline = [(score, passed) for score, passed in state["baseline"]]
        self.pass_rates = [(episode, rate) for episode, rate in state["pass_rates"]]
        self.raised, self.seen = set(state["raised"]), state["seen"]


def _fewer(judged: Sequence[tuple[float, bool]]) -> int:
    """How many there are of the rarer kind."""
    passed = sum(ok for _, ok in judged)
    return min(passed, len(judged) - passed)
