"""How far a run has moved its policy in all, for the price of one small forward pass an episode and of no second model in memory.

Some of the first episode's completions are kept with the log-probabilities that the starting policy gave them. As they were drawn from
that policy, the mean over their tokens of r - 1 - log r with r = p_now / p_start is an unbiased estimate of KL(start ‖ now) per token
(Schulman's k3, joschu.net/blog/kl-approx.html), never negative, and of little noise from one episode to the next, for the samples stay
the same. `approx_kl` cannot tell it: with one optimiser step a batch it compares the policy with itself and is 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from rlaif.config import TrainConfig
from rlaif.policy.logps import action_logps
from rlaif.policy.model import Policy
from rlaif.train.rollout import Batch

PROMPTS, EACH = 3, 2
"""How many of them: two of a problem cost one prompt, and prompts are most of the pass."""
FILE = "drift.json"


@dataclass(frozen=True, slots=True)
class Drift:
    """The kept completions, [P][G], and each one's log-probabilities under the policy that the run began with (after a warm start)."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[list[int]]]
    start_logps: list[list[list[float]]]

    @classmethod
    def begin(cls, policy: Policy, batch: Batch, config: TrainConfig) -> Drift:
        """From the first episode's batch, before its update."""
        written = [[list(one.token_ids) for one in group if one.token_ids][:EACH] for group in batch.samples]
        places = [p for p, group in enumerate(written) if group][:PROMPTS]
        prompts, completions = [list(batch.prompt_ids[p]) for p in places], [written[p] for p in places]
        return cls(prompts, completions, _logps(policy, prompts, completions, config))

    def measure(self, policy: Policy, config: TrainConfig) -> float:
        """KL(start ‖ now) in nats per token; 0 for an unmoved policy."""
        total, tokens = 0.0, 0
        for group, group_now in zip(self.start_logps, _logps(policy, self.prompt_ids, self.completion_ids, config), strict=True):
            for old, new in zip(chain(*group), chain(*group_now), strict=True):
                log_ratio = min(new - old, 20.0)  # one token must not make the figure infinite
                total += math.exp(log_ratio) - 1 - log_ratio
                tokens += 1
        return total / max(tokens, 1)

    def save(self, folder: Path) -> None:
        text = json.dumps({"prompt_ids": self.prompt_ids, "completion_ids": self.completion_ids, "start_logps": self.start_logps})
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Drift | None:
        """None where there is none yet, or only a torn one, or one of a layout that is no longer read (a list of rows, not of groups)."""
        try:
            found = cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
            return found if all(isinstance(row, list) for group in found.start_logps for row in group) else None
        except (OSError, ValueError, TypeError):
            return None


@torch.no_grad()
def _logps(policy: Policy, prompts: Sequence[list[int]], completions: Sequence[Sequence[list[int]]], config: TrainConfig) -> list[list[list[float]]]:
    found = [[[0.0] * len(ids) for ids in group] for group in completions]
    rows = [one for group in found for one in group]
    for micro in action_logps(policy, prompts, completions, temperature=config.temperature, micro_batch_tokens=config.micro_batch_tokens):
        for row, time, logp in zip(micro.row_M.tolist(), micro.time_M.tolist(), micro.logp_M.tolist(), strict=True):
            rows[row][time] = logp
    return found
