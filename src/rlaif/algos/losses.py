"""Losses as pure functions: per-token values and metrics, and the one place where they are summed into a number.

Every loss returns one value per action token; `token_weight` turns the choice of average (per token, per sequence, per fixed length)
into a weight per token with one global denominator. A micro-batch's loss is then `(weight * loss).sum()`, and the sum over
micro-batches, accumulation steps and ranks is the batch's loss whatever the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Average = Literal["token", "sequence", "fixed_length"]
Metrics = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Denominators:
    """How many rows with an action and how many action tokens the *whole* batch has: over all micro-batches, accumulation steps and ranks."""

    rows: int
    tokens: int

    @staticmethod
    def of(mask_BT: Bool[Tensor, "B T"]) -> Denominators:
        """Count one process's rows and tokens; add the counts of other ranks before using them."""
        return Denominators(int((mask_BT.sum(1) > 0).sum()), int(mask_BT.sum()))


def token_weight(mask_BT: Bool[Tensor, "B T"], average: Average, total: Denominators, *, max_tokens: int | None = None) -> Float[Tensor, "B T"]:
    """What each token's loss counts; 0 off the mask. Any part of the batch may be given, with the whole batch's `total`.

    token: 1 / tokens of the batch (DAPO, arXiv 2503.14476, eq. 8). sequence: 1 / (rows · tokens of the row) (GRPO, arXiv 2402.03300, eq. 3).
    fixed_length: 1 / (rows · max_tokens), free of a length bias (Dr. GRPO, arXiv 2503.20783). Rows without an action do not count as rows.
    Raises ValueError if max_tokens is missing for fixed_length.
    """
    mask = mask_BT.float()
    rows, tokens = max(total.rows, 1), max(total.tokens, 1)
    match average:
        case "token":
            return mask / tokens
        case "sequence":
            return mask / (mask.sum(1, keepdim=True).clamp(min=1) * rows)
        case "fixed_length":
            if not max_tokens:
                raise ValueError("average 'fixed_length' needs max_tokens")
            return mask / (rows * max_tokens)


def clipped_surrogate(
    logp_BT: Float[Tensor, "B T"],
    old_logp_BT: Float[Tensor, "B T"],
    advantage_BT: Float[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, "B T"], Metrics]:
    """-min(ratio · A, clip(ratio, 1 - clip_low, 1 + clip_high) · A) (PPO, arXiv 1707.06347, eq. 7; two bounds: DAPO, arXiv 2503.14476, eq. 10).

    Metrics per token: `clipped` (the clip removed the gradient), `approx_kl` (k3 of the log-ratio), `ratio`.
    """
    log_ratio_BT = logp_BT - old_logp_BT
    ratio_BT = log_ratio_BT.exp()
    bounded_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratio_BT * advantage_BT, bounded_BT * advantage_BT)
    return loss_BT, _ratio_metrics(log_ratio_BT, ratio_BT, bounded_BT, advantage_BT)


def gspo_surrogate(
    logp_BT: Float[Tensor, "B T"],
    old_logp_BT: Float[Tensor, "B T"],
    advantage_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, "B T"], Metrics]:
    """The clipped surrogate on the sequence's ratio, exp(mean log-ratio over its tokens) (GSPO, arXiv 2507.18071, eq. 5 to 7).

    The ratio is spread over the row's tokens; sum it with `token_weight(..., "sequence")`. A row must lie whole in its micro-batch.
    """
    tokens_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1)
    return _row_surrogate(logp_BT, old_logp_BT, advantage_BT, mask_BT, tokens_B1, clip_low, clip_high)


def sequence_surrogate(
    logp_BT: Float[Tensor, "B T"],
    old_logp_BT: Float[Tensor, "B T"],
    advantage_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, "B T"], Metrics]:
    """The clipped surrogate on the whole completion as one action: its ratio is exp(sum of log-ratios) (RLOO, arXiv 2402.14740, section 3).

    On policy its gradient is A · grad log p(completion): a sum over tokens, not a mean. The ratio is spread over the row's tokens; sum it
    with `token_weight(..., "sequence")`. A row must lie whole in its micro-batch.
    """
    return _row_surrogate(logp_BT, old_logp_BT, advantage_BT, mask_BT, torch.ones_like(mask_BT[:, :1], dtype=torch.long), clip_low, clip_high)


def _row_surrogate(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, root_B1: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Metrics]:
    """One ratio per row, the `root_B1`-th root of the product of its tokens' ratios, at every token of it."""
    log_ratio_BT = torch.where(mask_BT, logp_BT - old_logp_BT, 0.0)
    ratio_BT = (log_ratio_BT.sum(1, keepdim=True) / root_B1).exp().expand_as(logp_BT)
    bounded_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratio_BT * advantage_BT, bounded_BT * advantage_BT)
    return loss_BT, _ratio_metrics(log_ratio_BT, ratio_BT, bounded_BT, advantage_BT)


def _ratio_metrics(log_ratio_BT: Tensor, ratio_BT: Tensor, bounded_BT: Tensor, advantage_BT: Tensor) -> Metrics:
    with torch.no_grad():
        clipped_BT = (bounded_BT * advantage_BT < ratio_BT * advantage_BT).float()
        approx_kl_BT = (log_ratio_BT.exp() - 1) - log_ratio_BT
        return {"clip_fraction": clipped_BT, "approx_kl": approx_kl_BT, "ratio": ratio_BT.detach()}


def reinforce(logp_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """-logp · A (Williams, 1992). With A = 1 on chosen samples it is their negative log-likelihood (RAFT, SFT)."""
    return -logp_BT * advantage_BT


def value_loss(
    value_BT: Float[Tensor, "B T"], old_value_BT: Float[Tensor, "B T"], return_BT: Float[Tensor, "B T"], *, clip: float
) -> Float[Tensor, "B T"]:
    """max of the plain and the clipped squared error, halved: ½ max((V - R)², (clip(V, V_old ± clip) - R)²) (PPO's reference code)."""
    bounded_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)
    return 0.5 * torch.maximum((value_BT - return_BT).square(), (bounded_BT - return_BT).square())


def truncated_importance_weight(logp_BT: Float[Tensor, "B T"], sampler_logp_BT: Float[Tensor, "B T"], cap: float = 2.0) -> Float[Tensor, "B T"]:
    """min(exp(logp - sampler_logp), cap), without gradient: corrects a sampler that is not bit-equal to the trainer (TIS; Yao et al., 2025)."""
    return (logp_BT - sampler_logp_BT).detach().exp().clamp(max=cap)


def dpo_loss(
    chosen_logp_B: Float[Tensor, "B"],
    rejected_logp_B: Float[Tensor, "B"],
    ref_chosen_logp_B: Float[Tensor, "B"],
    ref_rejected_logp_B: Float[Tensor, "B"],
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, "B"], Metrics]:
    """-log sigmoid(beta · margin), margin of summed log-ratios (DPO, arXiv 2305.18290, eq. 7); soft labels by smoothing (cDPO).

    Metrics: `reward_margin` (beta · margin) and `preference_accuracy`, per pair.
    """
    margin_B = (chosen_logp_B - ref_chosen_logp_B) - (rejected_logp_B - ref_rejected_logp_B)
    logit_B = beta * margin_B
    loss_B = -torch.nn.functional.logsigmoid(logit_B) * (1 - label_smoothing) - torch.nn.functional.logsigmoid(-logit_B) * label_smoothing
    return loss_B, {"reward_margin": logit_B.detach(), "preference_accuracy": (logit_B > 0).float()}


def bradley_terry_loss(
    chosen_score_B: Float[Tensor, "B"], rejected_score_B: Float[Tensor, "B"], probability_B: Float[Tensor, "B"] | None = None
) -> Float[Tensor, "B"]:
    """-log sigmoid(s_chosen - s_rejected) for a scalar reward model (InstructGPT, arXiv 2203.02155, eq. 1).

    probability_B: how likely the chosen one is the better of the two, for labels that are not sure (RLAIF, arXiv 2309.00267, sec. 2.2.1): the
    cross-entropy -p log sigmoid(d) - (1 - p) log sigmoid(-d). None: 1 for every pair.
    """
    gap_B = chosen_score_B - rejected_score_B
    if probability_B is None:
        return -torch.nn.functional.logsigmoid(gap_B)
    return -probability_B * torch.nn.functional.logsigmoid(gap_B) - (1 - probability_B) * torch.nn.functional.logsigmoid(-gap_B)


def explained_variance(value_BT: Float[Tensor, "B T"], return_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> float:
    """1 - Var(R - V) / Var(R) over the mask: 1 is a perfect critic, 0 no better than a constant; nan if returns are constant."""
    returns_N, error_N = return_BT[mask_BT], (return_BT - value_BT)[mask_BT]
    variance = returns_N.var(correction=0)
    return float("nan") if returns_N.numel() == 0 or variance == 0 else float(1 - error_N.var(correction=0) / variance)
