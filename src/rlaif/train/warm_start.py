"""Supervised warm start: a few steps of next-token loss on the training problems' reference solutions, before any RL.

The prompts are those of RL, the answer is the reference's body and the closing fence, so the policy learns the form it will be graded in.
Its lift is measured and reported apart from RL's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rlaif.algos.losses import Denominators, reinforce, token_weight
from rlaif.config import TrainConfig
from rlaif.policy.logps import action_logps
from rlaif.policy.model import Policy
from rlaif.policy.tree_attention import FLAT_MODELS
from rlaif.problems.prompting import FENCE_END, build_prompt, encode_prompt
from rlaif.train.distributed import world
from rlaif.train.update import clip_gradients
from rlaif.types import Problem


def reference_ids(policy: Policy, problem: Problem) -> tuple[list[int], tuple[int, ...]] | None:
    """(prompt ids, answer ids) of a problem, or None if its reference does not continue the prompt's opening or there is none."""
    if not problem.reference:
        return None
    prompt = build_prompt(problem, policy.tokenizer)
    code = problem.reference.strip("\n")
    body = code
    if prompt.response_prefix:
        # helpers above the signature cannot be written after it: only references that start with the opening are taught
        before, opening, body = code.partition(prompt.response_prefix)
        if not opening or before.strip():
            return None
    chat = bool(getattr(policy.tokenizer, "chat_template", None))
    ids = policy.tokenizer(body + (FENCE_END if chat else "\n"), add_special_tokens=False).input_ids
    return encode_prompt(prompt, policy.tokenizer), tuple(ids if chat else [*ids, *sorted(policy.stop_token_ids)[:1]])


def warm_start(
    policy: Policy, problems: Sequence[Problem], config: TrainConfig, generator: torch.Generator, progress: Callable[[int, float], None]
) -> int:
    """Take `config.sft_steps` steps of `sft_batch_size` answers each; returns the number of answers there were to learn from.

    progress(step, loss in nats per token) is called after each step.
    """
    pairs = [pair for pair in (reference_ids(policy, problem) for problem in problems) if pair is not None]
    pairs = [(prompt, answer) for prompt, answer in pairs if len(answer) <= 4 * config.max_new_tokens]
    if not pairs:
        return 0
    parameters = policy.trainable_parameters()
    optimizer = torch.optim.AdamW(
        parameters, lr=config.sft_learning_rate, weight_decay=config.weight_decay, fused=policy.device.type in ("cpu", "cuda")
    )
    size = min(len(pairs), config.sft_batch_size)
    micro_batch_tokens = config.micro_batch_tokens
    if not config.sft_prompt_gradient and policy.config.model_type in FLAT_MODELS:
        # only answers leave something for the backward pass: a micro-batch may be as much longer as prompts make it (within reason: all is read)
        prompt_tokens, answer_tokens = (sum(map(len, ids)) for ids in zip(*pairs, strict=True))
        micro_batch_tokens = int(micro_batch_tokens * min(4.0, 1 + prompt_tokens / answer_tokens))
    order: list[int] = []
    for step in range(config.sft_steps):
        for group in optimizer.param_groups:  # linear decay to zero: the last steps must not leave noise for RL to start from
            group["lr"] = config.sft_learning_rate * (1 - step / config.sft_steps)
        if len(order) < size:
            order += torch.randperm(len(pairs), generator=generator).tolist()
        chosen, order = order[:size], order[size:]
        total = Denominators(size, sum(len(pairs[i][1]) for i in chosen))
        loss_sum, own = 0.0, set(world().shard(range(size)))
        micros = action_logps(
            policy,
            [pairs[i][0] for i in chosen],
            [[pairs[i][1]] for i in chosen],
            micro_batch_tokens=micro_batch_tokens,
            keep=[[place in own] for place in range(size)],
            prompt_gradient=config.sft_prompt_gradient,
        )
        for micro in micros:
            logp_1M = micro.logp_M[None]
            mask_1M = torch.ones_like(logp_1M, dtype=torch.bool)
            loss = (token_weight(mask_1M, "token", total) * reinforce(logp_1M, torch.ones_like(logp_1M))).sum()
            loss.backward()
            loss_sum += float(loss.detach())
        world().sum_gradients(parameters)
        clip_gradients(parameters, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress(step + 1, sum(world().gather([loss_sum])))
    return len(pairs)
