"""Advantage estimators: from rewards to the number each action's log-probability is pushed by. Pure functions on tensors.

`valid` marks samples that were scored. A sample nobody could score (infrastructure failure) enters no baseline and gets advantage 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

EQUAL_REWARDS = 1e-6
"""Rewards of a group that lie within this are equal: the group has no gradient."""


def token_reward(reward_B: Float[Tensor, "B"], kl_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], kl_coef: float) -> Float[Tensor, "B T"]:
    """-kl_coef * k1 at every action token, plus the sample's reward at its last one (InstructGPT, arXiv 2203.02155, eq. 2).

    Rows without an action get nothing. Raises ValueError if shapes disagree.
    """
    if reward_B.shape[0] != mask_BT.shape[0] or kl_BT.shape != mask_BT.shape:
        raise ValueError(f"reward {tuple(reward_B.shape)}, kl {tuple(kl_BT.shape)} and mask {tuple(mask_BT.shape)} do not fit")
    result_BT = torch.where(mask_BT, -kl_coef * kl_BT, 0.0)
    length_B = mask_BT.sum(1)
    rows_R = torch.nonzero(length_B > 0).squeeze(1)
    result_BT[rows_R, length_B[rows_R] - 1] += reward_B[rows_R]
    return result_BT


def gae(
    reward_BT: Float[Tensor, "B T"], value_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], gamma: float, lam: float
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16) -> (advantage_BT, return_BT), both 0 off the mask.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}; after a row's last action V and A are 0. The mask of a
    row is its first n tokens (an action sequence without holes); ValueError otherwise.
    """
    if (mask_BT[:, 1:] & ~mask_BT[:, :-1]).any():
        raise ValueError("mask_BT has holes: actions must be the first n tokens of a row")
    value_BT = torch.where(mask_BT, value_BT, 0.0)
    advantage_BT = torch.zeros_like(value_BT)
    running_B = torch.zeros_like(value_BT[:, 0])
    next_value_B = torch.zeros_like(running_B)
    for t in reversed(range(value_BT.shape[1])):
        delta_B = reward_BT[:, t] + gamma * next_value_B - value_BT[:, t]
        running_B = torch.where(mask_BT[:, t], delta_B + gamma * lam * running_B, 0.0)
        advantage_BT[:, t] = running_B
        next_value_B = value_BT[:, t]
    return advantage_BT, torch.where(mask_BT, advantage_BT + value_BT, 0.0)


def whiten(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], eps: float = 1e-8) -> Float[Tensor, "B T"]:
    """Zero mean and unit (biased) variance over the action mask of the whole batch; 0 off the mask.

    Call it once per batch, before micro-batches are cut, or the result depends on the cut. A constant input becomes 0.
    """
    count = mask_BT.sum().clamp(min=1)
    mean = torch.where(mask_BT, x_BT, 0.0).sum() / count
    centred_BT = torch.where(mask_BT, x_BT - mean, 0.0)
    return centred_BT * torch.rsqrt(centred_BT.square().sum() / count + eps)


def centre_groups(advantage_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], group_size: int) -> Float[Tensor, "B T"]:
    """Advantages less their group's mean, where every row of a group counts the same whatever its length; 0 off the mask.

    A control variate on top of a critic (the group baseline of REINFORCE++-baseline, arXiv 2501.03262, section 3.3): a critic that has not yet
    learnt how hard a problem is would punish every answer to a hard one. Rows without an action enter no mean. ValueError if B is not a
    multiple of `group_size`.
    """
    if group_size < 1 or advantage_BT.shape[0] % group_size:
        raise ValueError(f"{advantage_BT.shape[0]} rows are no groups of {group_size}")
    length_B = mask_BT.sum(1)
    mean_PG = (torch.where(mask_BT, advantage_BT, 0.0).sum(1) / length_B.clamp(min=1)).view(-1, group_size)
    counted_PG = (length_B > 0).view(-1, group_size)
    mean_P1 = torch.where(counted_PG, mean_PG, 0.0).sum(1, keepdim=True) / counted_PG.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mask_BT, advantage_BT - mean_P1.expand_as(mean_PG).reshape(-1, 1), 0.0)


def _check_group(reward_PG: Tensor, valid_PG: Tensor) -> None:
    if reward_PG.shape != valid_PG.shape or reward_PG.ndim != 2:
        raise ValueError(f"rewards {tuple(reward_PG.shape)} and valid {tuple(valid_PG.shape)} must both be [P, G]")
    if reward_PG.shape[1] < 2:
        raise ValueError("a group of one has no baseline: use a group of at least 2, or PPO")


def has_signal(reward_PG: Float[Tensor, "P G"], valid_PG: Bool[Tensor, "P G"]) -> Bool[Tensor, "P"]:
    """Groups whose valid rewards differ by more than `EQUAL_REWARDS`: only they have a group-relative gradient."""
    highest_P = torch.where(valid_PG, reward_PG, -torch.inf).amax(1)
    lowest_P = torch.where(valid_PG, reward_PG, torch.inf).amin(1)
    return highest_P - lowest_P > EQUAL_REWARDS


def group_advantage(reward_PG: Float[Tensor, "P G"], valid_PG: Bool[Tensor, "P G"], *, scale_by_std: bool, eps: float = 1e-4) -> Float[Tensor, "P G"]:
    """reward - mean(group), over std(group) + eps if asked (GRPO, arXiv 2402.03300, eq. 3; without it Dr. GRPO, arXiv 2503.20783).

    The standard deviation is the unbiased one, as in TRL. Groups without signal, and samples that are not valid, get 0.
    Raises ValueError for groups of one.
    """
    _check_group(reward_PG, valid_PG)
    count_P1 = valid_PG.sum(1, keepdim=True)
    mean_P1 = torch.where(valid_PG, reward_PG, 0.0).sum(1, keepdim=True) / count_P1.clamp(min=1)
    centred_PG = torch.where(valid_PG & has_signal(reward_PG, valid_PG)[:, None], reward_PG - mean_P1, 0.0)
    if not scale_by_std:
        return centred_PG
    std_P1 = (centred_PG.square().sum(1, keepdim=True) / (count_P1 - 1).clamp(min=1)).sqrt()
    return centred_PG / (std_P1 + eps)


def rloo_advantage(reward_PG: Float[Tensor, "P G"], valid_PG: Bool[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """reward minus the mean of the *other* valid rewards of its group (RLOO, arXiv 2402.14740, eq. 7).

    A sample that is alone among the valid ones, or not valid, gets 0. Raises ValueError for groups of one.
    """
    _check_group(reward_PG, valid_PG)
    count_P1 = valid_PG.sum(1, keepdim=True)
    total_P1 = torch.where(valid_PG, reward_PG, 0.0).sum(1, keepdim=True)
    others_PG = (total_P1 - reward_PG) / (count_P1 - 1).clamp(min=1)
    return torch.where(valid_PG & (count_P1 > 1) & has_signal(reward_PG, valid_PG)[:, None], reward_PG - others_PG, 0.0)


def reinforce_pp_advantage(reward_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], gamma: float = 1.0) -> Float[Tensor, "B T"]:
    """Discounted return to go, whitened over the whole batch instead of a group (REINFORCE++, arXiv 2501.03262, eq. 9).

    `mask_BT` must already leave out rows that could not be scored.
    """
    zeros_BT = torch.zeros_like(reward_BT)
    return_BT, _ = gae(reward_BT, zeros_BT, mask_BT, gamma, 1.0)
    return whiten(return_BT, mask_BT)


def raft_weight(reward_PG: Float[Tensor, "P G"], valid_PG: Bool[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """1 for each group's best valid sample (the first of equals) if the group has signal, else 0 (RAFT, arXiv 2304.06767, algorithm 1)."""
    best_P = torch.where(valid_PG, reward_PG, -torch.inf).argmax(1)
    weight_PG = torch.nn.functional.one_hot(best_P, reward_PG.shape[1]).to(reward_PG.dtype)
    return weight_PG * has_signal(reward_PG, valid_PG)[:, None]


def soft_overlong_penalty(length_B: Int[Tensor, "B"], max_tokens: int, buffer_tokens: int) -> Float[Tensor, "B"]:
    """0 up to max - buffer, falling linearly to -1 at max_tokens (DAPO, arXiv 2503.14476, eq. 13). ValueError unless 0 < buffer <= max."""
    if not 0 < buffer_tokens <= max_tokens:
        raise ValueError(f"buffer_tokens must be in 1..{max_tokens}, not {buffer_tokens}")
    return ((max_tokens - buffer_tokens - length_B) / buffer_tokens).clamp(min=-1.0, max=0.0)
