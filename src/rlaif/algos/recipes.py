"""Each algorithm as a named recipe: an advantage estimator, a loss and an average. What differs between the papers, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlaif.algos.losses import Average
from rlaif.config import Algo


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one algorithm turns rewards into an update.

    estimator: see `advantages`; `loss`: see `losses`; `average`: see `token_weight`; `scale_by_std` divides group advantages by the
    group's spread; `critic` asks for a value head; `kl_in_reward` puts KL (k1) into the reward, otherwise it goes into the loss.
    """

    estimator: Literal["gae", "group", "rloo", "reinforce++", "raft", "pairs"]
    loss: Literal["clipped", "sequence", "gspo", "reinforce", "dpo"]
    average: Average
    clip_low: float = 0.2
    clip_high: float = 0.2
    scale_by_std: bool = False
    critic: bool = False
    kl_in_reward: bool = False
    overlong_penalty: bool = False

    @property
    def needs_group(self) -> bool:
        return self.estimator in ("group", "rloo", "raft", "pairs")

    def needs_reference(self, kl_coef: float) -> bool:
        """Whether the policy is held against the one before training: by a KL term, or by DPO's margins."""
        return kl_coef > 0 or self.estimator == "pairs"


def recipe_for(algo: Algo, *, clip: float = 0.2, clip_high: float | None = None) -> Recipe:
    """The recipe of an algorithm. `clip` and `clip_high` are the user's; where a paper fixes other defaults they are used unless clip_high is given.

    GSPO's bounds are per sequence and far tighter (its section 5.1: 3e-4 and 4e-4), so `clip` does not apply to it.
    """
    high = clip if clip_high is None else clip_high
    match algo:
        case "ppo":  # arXiv 1707.06347 with the RLHF reward of arXiv 2203.02155
            return Recipe("gae", "clipped", "token", clip, high, critic=True, kl_in_reward=True)
        case "grpo":  # arXiv 2402.03300
            return Recipe("group", "clipped", "sequence", clip, high, scale_by_std=True)
        case "dr_grpo":  # arXiv 2503.20783
            return Recipe("group", "clipped", "fixed_length", clip, high)
        case "dapo":  # arXiv 2503.14476
            return Recipe("group", "clipped", "token", clip, 0.28 if clip_high is None else clip_high, scale_by_std=True, overlong_penalty=True)
        case "rloo":  # arXiv 2402.14740
            return Recipe("rloo", "sequence", "sequence", clip, high, kl_in_reward=True)
        case "reinforce++":  # arXiv 2501.03262
            return Recipe("reinforce++", "clipped", "token", clip, high, kl_in_reward=True)
        case "gspo":  # arXiv 2507.18071
            return Recipe("group", "gspo", "sequence", 3e-4, 4e-4 if clip_high is None else clip_high, scale_by_std=True)
        case "raft":  # arXiv 2304.06767
            return Recipe("raft", "reinforce", "token")
        case "online_dpo":  # arXiv 2402.04792
            return Recipe("pairs", "dpo", "sequence")
