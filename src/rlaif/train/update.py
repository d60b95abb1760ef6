"""The update: from one batch of graded completions to one (or a few) optimiser steps.

    rewards -> advantages -> per-token losses -> one number per micro-batch, by a global denominator -> gradients -> step

Advantages are worked out for the whole batch before any micro-batch is cut, and skipped rows keep their place in the denominator, so
neither the cut nor the skipping changes the result.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from rlaif.algos import advantages, kl, losses
from rlaif.algos.losses import Denominators
from rlaif.algos.recipes import Recipe
from rlaif.config import TrainConfig
from rlaif.policy import packing
from rlaif.policy.logps import ActionLogps, action_logps, action_values
from rlaif.policy.model import Policy
from rlaif.policy.sharding import whole
from rlaif.train.distributed import world
from rlaif.train.rollout import Batch

OVERLONG_BUFFER_SHARE = 0.2
"""DAPO punishes the last fifth of max_new_tokens, as in its paper (4,096 of 20,480)."""
DPO_BETA = 0.1


@dataclass(slots=True)
class Frozen:
    """What a first pass without gradients found out about the whole batch; [B, T], 0 off the mask. None where it was not needed."""

    old_logp_BT: Tensor | None = None
    ref_logp_BT: Tensor | None = None
    value_BT: Tensor | None = None
    only_micro: ActionLogps | None = None
    """Of a batch that is one micro-batch and gets one step: its forward pass, graph and all, which gave the values and serves the step as well."""


@dataclass(slots=True)
class Plan:
    """What the update works from, all [B, T]: actions that count, their advantages, and (with a critic) the returns."""

    mask_BT: Bool[Tensor, "B T"]
    advantage_BT: Float[Tensor, "B T"]
    return_BT: Float[Tensor, "B T"] | None
    sampler_logp_BT: Float[Tensor, "B T"]
    skipped_group_share: float


def build_optimizer(policy: Policy, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable weights, and over the value head with its own rate."""
    groups = [{"params": policy.trainable_parameters(), "lr": config.learning_rate, "base_lr": config.learning_rate}]
    if policy.value_head is not None:
        groups.append({"params": list(policy.value_head.parameters()), "lr": config.value_learning_rate, "base_lr": config.value_learning_rate})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=policy.device.type in ("cpu", "cuda"))


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, episode: int) -> None:
    """Linear warm-up over `warmup_episodes`, then constant, or linearly down to one step above 0. `episode` counts from 1."""
    warmup = config.warmup_episodes
    scale = min(1.0, episode / warmup) if warmup else 1.0
    if config.learning_rate_schedule == "linear" and episode > warmup:
        scale = (config.episodes - episode + 1) / (config.episodes - warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale


def update(
    policy: Policy, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, config: TrainConfig, generator: torch.Generator
) -> dict[str, float]:
    """Take the optimiser steps of one episode and return its metrics. A batch nobody could score makes no step."""
    start = time.perf_counter()
    P, G = batch.reward_PG.shape
    mask_BT = action_mask(batch)
    usable_B = batch.valid_PG.flatten() & ~(batch.truncated_PG.flatten() & (config.truncated == "mask"))
    usable_BT = mask_BT & usable_B[:, None]
    if not usable_BT.any():
        return {"steps": 0.0, "update_s": time.perf_counter() - start}
    steps = config.update_epochs * config.minibatches
    frozen = first_pass(policy, batch, usable_BT, recipe, config, steps)
    plan = make_plan(batch, usable_B, usable_BT, frozen, recipe, config)
    sums: dict[str, float] = defaultdict(float)
    metrics: dict[str, float] = {"steps": 0.0, "skipped_group_share": plan.skipped_group_share}
    for problems in _minibatches(P, config, generator):
        chosen_PG = torch.zeros(P, G, dtype=torch.bool)
        chosen_PG[problems] = True
        part_BT = usable_BT & chosen_PG.view(-1, 1)
        total = Denominators.of(part_BT)
        if not total.tokens:
            continue
        learned_BT = part_BT & _has_gradient(plan, recipe, config)
        if not learned_BT.any():
            continue
        rows_B = learned_BT.any(1) & _own_rows(batch)
        micros = [frozen.only_micro] if frozen.only_micro else _micro_batches(policy, batch, rows_B, config, values=recipe.critic)
        for micro in micros:
            loss = micro_loss(micro, plan, frozen, part_BT, total, recipe, config, sums)
            loss.backward()
        metrics["grad_norm"] = _step(optimizer, config)
        batch.trace = None  # of weights that are no more
        metrics["steps"] += 1
    sums = _summed(sums)
    if metrics["steps"]:
        tokens = sums.pop("tokens")
        metrics |= {name: value / tokens for name, value in sums.items()}
    if recipe.critic and frozen.value_BT is not None and plan.return_BT is not None:
        metrics["explained_variance"] = losses.explained_variance(frozen.value_BT, plan.return_BT, usable_BT)
    metrics["update_s"] = time.perf_counter() - start
    return metrics


def action_mask(batch: Batch) -> Bool[Tensor, "B T"]:
    """True at sampled tokens, the stop token included; rows are padded on the right."""
    lengths_B = torch.tensor([len(one.token_ids) for group in batch.samples for one in group])
    return torch.arange(max(int(lengths_B.max()), 1))[None] < lengths_B[:, None]


def _minibatches(P: int, config: TrainConfig, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.update_epochs):
        order_P = torch.arange(P) if config.minibatches == 1 else torch.randperm(P, generator=generator)
        yield from order_P.chunk(config.minibatches)


def _micro_batches(policy: Policy, batch: Batch, rows_B: Bool[Tensor, "B"], config: TrainConfig, *, values: bool) -> Iterator[ActionLogps]:
    """Forward passes over the chosen rows; the others cost nothing."""
    return action_logps(
        policy,
        batch.prompt_ids,
        batch.completion_ids,
        temperature=config.temperature,
        with_values=values,
        with_entropy=True,
        micro_batch_tokens=config.micro_batch_tokens,
        keep=_kept(batch, rows_B),
        trace=batch.trace,
    )


def _own_rows(batch: Batch) -> Bool[Tensor, "B"]:
    """Rows of the problems that are this process's to compute: all of them, where it is alone."""
    P, G = batch.reward_PG.shape
    own_P = torch.zeros(P, dtype=torch.bool)
    own_P[list(world().shard(range(P)))] = True
    return own_P.repeat_interleave(G)


def _summed(sums: dict[str, float]) -> dict[str, float]:
    """`sums` over all processes, one of which may have had no rows and so no names."""
    total: dict[str, float] = defaultdict(float)
    for part in world().gather([dict(sums)]):
        for name, value in part.items():
            total[name] += value
    return total


def _kept(batch: Batch, rows_B: Bool[Tensor, "B"]) -> list[list[bool]]:
    return rows_B.view(batch.reward_PG.shape).tolist()


def _is_one_micro_batch(batch: Batch, rows_B: Bool[Tensor, "B"], config: TrainConfig) -> bool:
    return len(packing.plan(batch.prompt_ids, batch.completion_ids, _kept(batch, rows_B), config.micro_batch_tokens)) == 1


def first_pass(policy: Policy, batch: Batch, usable_BT: Bool[Tensor, "B T"], recipe: Recipe, config: TrainConfig, steps: int) -> Frozen:
    """Old log-probabilities, values and reference log-probabilities, each only if the recipe needs it before the first gradient.

    With one step per batch the old log-probabilities equal the new ones, so that pass is skipped; and where the batch is one micro-batch, the
    pass for the values is the step's own.
    """
    frozen = Frozen()
    kl_now = config.kl_coef > 0
    pairs = recipe.estimator == "pairs"
    rows_B = usable_BT.any(1) & _own_rows(batch)
    needs_old = steps > 1 or pairs or (kl_now and recipe.kl_in_reward)
    if recipe.critic and steps == 1 and policy.shards is None and _is_one_micro_batch(batch, rows_B, config):
        frozen.only_micro = next(_micro_batches(policy, batch, rows_B, config, values=True))
    logp_BT, value_BT = torch.zeros(usable_BT.shape), torch.zeros(usable_BT.shape)
    if needs_old or frozen.only_micro:
        micros = [frozen.only_micro] if frozen.only_micro else _micro_batches(policy, batch, rows_B, config, values=recipe.critic)
        logp_BT, value_BT = _collect(micros, usable_BT)
    elif recipe.critic:
        for value_M, row_M, time_M in action_values(
            policy, batch.prompt_ids, batch.completion_ids, micro_batch_tokens=config.micro_batch_tokens, keep=_kept(batch, rows_B), trace=batch.trace
        ):
            value_BT[row_M.cpu(), time_M.cpu()] = value_M.float().cpu()
    # which way a process went depends on its own rows; all of them come to the same sums
    if needs_old:
        frozen.old_logp_BT = world().sum(logp_BT)
    if recipe.critic:
        frozen.value_BT = world().sum(value_BT)
    if recipe.needs_reference(config.kl_coef):
        with policy.reference() as reference:
            ref_logp_BT, _ = _collect(_micro_batches(reference, batch, rows_B, config, values=False), usable_BT)
        frozen.ref_logp_BT = world().sum(ref_logp_BT)
    return frozen


@torch.no_grad()
def _collect(micros: Iterable[ActionLogps], usable_BT: Tensor) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """This process's log-probabilities and values (0 where there is no critic)."""
    logp_BT, value_BT = torch.zeros(usable_BT.shape), torch.zeros(usable_BT.shape)
    for micro in micros:
        row_M, time_M = micro.row_M.cpu(), micro.time_M.cpu()
        logp_BT[row_M, time_M] = micro.logp_M.float().cpu()
        if micro.value_M is not None:
            value_BT[row_M, time_M] = micro.value_M.float().cpu()
    return logp_BT, value_BT


def make_plan(batch: Batch, usable_B: Tensor, usable_BT: Tensor, frozen: Frozen, recipe: Recipe, config: TrainConfig) -> Plan:
    """Rewards to advantages, for the whole batch. Raises ValueError for a group of one where the baseline is the group."""
    reward_PG, usable_PG = batch.reward_PG, usable_B.view_as(batch.reward_PG)
    if recipe.overlong_penalty:
        buffer = max(1, int(config.max_new_tokens * OVERLONG_BUFFER_SHARE))
        lengths_B = action_mask(batch).sum(1)
        reward_PG = reward_PG + advantages.soft_overlong_penalty(lengths_B, config.max_new_tokens, buffer).view_as(reward_PG)
    kl_BT = torch.zeros(usable_BT.shape)
    if recipe.kl_in_reward and config.kl_coef > 0:
        kl_BT = kl.kl_k1(frozen.old_logp_BT, frozen.ref_logp_BT)
    reward_BT = advantages.token_reward(reward_PG.flatten(), kl_BT, usable_BT, config.kl_coef)
    return_BT = None
    match recipe.estimator:
        case "gae":
            raw_BT, return_BT = advantages.gae(reward_BT, frozen.value_BT, usable_BT, config.gamma, config.gae_lambda)
            if config.group_baseline and reward_PG.shape[1] > 1:
                raw_BT = advantages.centre_groups(raw_BT, usable_BT, reward_PG.shape[1])
            advantage_BT = advantages.whiten(raw_BT, usable_BT)
        case "reinforce++":
            advantage_BT = advantages.reinforce_pp_advantage(reward_BT, usable_BT, config.gamma)
        case "pairs":
            advantage_BT = _dpo_advantage(reward_PG, usable_PG, usable_BT, frozen)
        case "group" | "rloo" | "raft":
            total_PG = reward_BT.sum(1).view_as(reward_PG)
            if recipe.estimator == "rloo":
                advantage_PG = advantages.rloo_advantage(total_PG, usable_PG)
            elif recipe.estimator == "raft":
                advantage_PG = advantages.raft_weight(total_PG, usable_PG)
            else:
                advantage_PG = advantages.group_advantage(total_PG, usable_PG, scale_by_std=recipe.scale_by_std)
            advantage_BT = advantage_PG.view(-1, 1) * usable_BT
    skipped = 1 - advantages.has_signal(reward_PG, usable_PG).float().mean().item()
    return Plan(usable_BT, advantage_BT, return_BT, _sampler_logp(batch, usable_BT), skipped)


def _sampler_logp(batch: Batch, usable_BT: Tensor) -> Float[Tensor, "B T"]:
    """What the sampler gave each action; nan where it is not known (responses that were not sampled here)."""
    result_BT = torch.full(usable_BT.shape, torch.nan)
    for row, one in enumerate(one for group in batch.samples for one in group):
        result_BT[row, : len(one.logp_T)] = torch.tensor(one.logp_T)
    return torch.where(usable_BT, result_BT, 0.0)


def _dpo_advantage(reward_PG: Tensor, usable_PG: Tensor, usable_BT: Tensor, frozen: Frozen) -> Float[Tensor, "B T"]:
    """Online DPO as a weight on log-probabilities: minus the gradient of the mean DPO loss over (best, worst) pairs.

    d loss / d logp_chosen = -beta · sigmoid(-logit) at every token of the chosen row, and the opposite for the rejected one. So a pair
    may be cut apart by micro-batches. Sum it with weight 1 per token.
    """
    P, G = reward_PG.shape
    gap_B = torch.where(usable_BT, frozen.old_logp_BT - frozen.ref_logp_BT, 0.0).sum(1)
    best_P = torch.where(usable_PG, reward_PG, -torch.inf).argmax(1)
    worst_P = torch.where(usable_PG, reward_PG, torch.inf).argmin(1)
    signal_P = advantages.has_signal(reward_PG, usable_PG)
    offset_P = torch.arange(P) * G
    chosen_P, rejected_P = offset_P + best_P, offset_P + worst_P
    pull_P = DPO_BETA * torch.sigmoid(-DPO_BETA * (gap_B[chosen_P] - gap_B[rejected_P])) * signal_P / signal_P.sum().clamp(min=1)
    advantage_B = torch.zeros(P * G).index_add(0, chosen_P, pull_P).index_add(0, rejected_P, -pull_P)
    return advantage_B[:, None] * usable_BT


def _has_gradient(plan: Plan, recipe: Recipe, config: TrainConfig) -> Bool[Tensor, "B 1"]:
    """Rows whose loss depends on the weights: all of them if there is a KL, an entropy or a value term, else those with an advantage."""
    if recipe.critic or config.entropy_coef > 0 or (config.kl_coef > 0 and not recipe.kl_in_reward):
        return torch.ones(len(plan.mask_BT), 1, dtype=torch.bool)
    return (plan.advantage_BT != 0).any(1, keepdim=True)


def micro_loss(
    micro: ActionLogps, plan: Plan, frozen: Frozen, part_BT: Tensor, total: Denominators, recipe: Recipe, config: TrainConfig, sums: dict[str, float]
) -> Tensor:
    """One micro-batch's share of the loss, a scalar to call backward on. Adds per-token sums of the metrics to `sums`."""
    rows_R, place_M = torch.unique(micro.row_M.cpu(), return_inverse=True)
    time_M = micro.time_M.cpu()
    device = micro.logp_M.device

    def spread(values_M: Tensor) -> Tensor:
        padded_RT = torch.zeros(len(rows_R), part_BT.shape[1], dtype=values_M.dtype, device=device)
        return padded_RT.index_put((place_M.to(device), time_M.to(device)), values_M)

    mask_RT = part_BT[rows_R].to(device)
    logp_RT = torch.where(mask_RT, spread(micro.logp_M), 0.0)
    old_RT = logp_RT.detach() if frozen.old_logp_BT is None else frozen.old_logp_BT[rows_R].to(device)
    advantage_RT = plan.advantage_BT[rows_R].to(device)
    match recipe.loss:
        case "clipped":
            loss_RT, metrics = losses.clipped_surrogate(logp_RT, old_RT, advantage_RT, clip_low=recipe.clip_low, clip_high=recipe.clip_high)
        case "gspo":
            loss_RT, metrics = losses.gspo_surrogate(logp_RT, old_RT, advantage_RT, mask_RT, clip_low=recipe.clip_low, clip_high=recipe.clip_high)
        case "sequence":
            loss_RT, metrics = losses.sequence_surrogate(logp_RT, old_RT, advantage_RT, mask_RT, clip_low=recipe.clip_low, clip_high=recipe.clip_high)
        case "reinforce" | "dpo":
            loss_RT, metrics = losses.reinforce(logp_RT, advantage_RT), {}
    sampler_RT = plan.sampler_logp_BT[rows_R].to(device)
    sampler_RT = torch.where(sampler_RT.isnan(), old_RT, sampler_RT)
    metrics["sampler_mismatch"] = (old_RT - sampler_RT).abs()
    if recipe.loss in ("clipped", "sequence", "gspo"):
        loss_RT = loss_RT * losses.truncated_importance_weight(old_RT, sampler_RT)
    if recipe.loss == "dpo":  # already divided by the number of pairs, and summed over tokens
        weight_RT = mask_RT.float()
    elif recipe.estimator == "raft":  # the mean negative log-likelihood of the rows that were kept
        weight_RT = losses.token_weight(mask_RT, "token", Denominators(0, int((plan.advantage_BT != 0).sum())))
    else:
        weight_RT = losses.token_weight(mask_RT, recipe.average, total, max_tokens=config.max_new_tokens)
    policy_loss = (weight_RT * loss_RT).sum()
    loss = policy_loss
    if config.kl_coef > 0 and frozen.ref_logp_BT is not None:
        ref_RT = frozen.ref_logp_BT[rows_R].to(device)
        metrics["ref_kl"] = kl.kl_k3(logp_RT.detach(), ref_RT)
        if not recipe.kl_in_reward and recipe.loss != "dpo":
            loss = loss + config.kl_coef * (weight_RT * kl.kl_loss(logp_RT, old_RT, ref_RT)).sum()
    if micro.entropy_M is not None:
        entropy_RT = spread(micro.entropy_M)
        metrics["entropy"] = entropy_RT.detach()
        if config.entropy_coef > 0:
            loss = loss - config.entropy_coef * (weight_RT * entropy_RT).sum()
    if recipe.critic and micro.value_M is not None:
        old_value_RT = frozen.value_BT[rows_R].to(device)
        error_RT = losses.value_loss(spread(micro.value_M), old_value_RT, plan.return_BT[rows_R].to(device), clip=config.value_clip)
        loss = loss + config.value_coef * (weight_RT * error_RT).sum()
        metrics["value_loss"] = error_RT.detach()
    sums["tokens"] += int(mask_RT.sum())
    for name, value_RT in metrics.items():
        sums[name] += float(torch.where(mask_RT, value_RT, 0.0).sum())
    sums["policy_loss"] += float(policy_loss.detach()) * max(total.tokens, 1)
    return loss


def _step(optimizer: torch.optim.Optimizer, config: TrainConfig) -> float:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    world().sum_gradients(parameters)
    norm = clip_gradients(parameters, config.max_grad_norm)
    if math.isfinite(norm):  # one overflow must not poison the moments of every weight
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def clip_gradients(parameters: Sequence[torch.nn.Parameter], most: float) -> float:
    """Scale all gradients together to a norm of at most `most`; the norm before. Some may be sharded (the policy's) and some whole (the critic's)."""
    sharded = [parameter.grad for parameter in parameters if isinstance(parameter.grad, DTensor)]
    if not sharded:
        return float(torch.nn.utils.clip_grad_norm_(parameters, most))
    others = [parameter.grad for parameter in parameters if parameter.grad is not None and not isinstance(parameter.grad, DTensor)]
    norm = math.hypot(*(float(whole(torch.nn.utils.get_total_norm(part))) for part in (sharded, others) if part))
    if norm > most:
        for gradient in (*sharded, *others):
            gradient.mul_(most / (norm + 1e-6))
    return norm
