"""Log-probabilities of the policy's actions, micro-batch by micro-batch, for the trainer.

    for batch in action_logps(policy, prompts, completions, temperature=1.0, micro_batch_tokens=4096):
        loss = (weight_BT[batch.row_M, batch.time_M] * batch.logp_M).sum() / denominator   # one denominator for all micro-batches
        loss.backward()

Gradients follow the caller's grad mode at the time of iteration. Every token of a completion is an action, its end-of-sequence token
included; nothing here knows about padding ids, so pad == eos cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif.policy.fused_update import can_fuse_update, flat_hidden
from rlaif.policy.head import token_logps
from rlaif.policy.model import Policy
from rlaif.policy.packing import Group, Member, Packed, TreePlan, pack, pad, plan
from rlaif.policy.trace import Trace
from rlaif.policy.tree_attention import FLAT_MODELS, no_mask


@dataclass(frozen=True, slots=True)
class ActionLogps:
    """One micro-batch of M actions. row_M and time_M say where each stands in [B, T], B counting completions prompt by prompt."""

    logp_M: Tensor
    row_M: Tensor
    time_M: Tensor
    entropy_M: Tensor | None = None
    value_M: Tensor | None = None

    def none(self) -> ActionLogps:
        """Its first 0 actions, which still lead back to the weights."""
        entropy_M, value_M = (None if x is None else x[:0] for x in (self.entropy_M, self.value_M))
        return ActionLogps(self.logp_M[:0], self.row_M[:0], self.time_M[:0], entropy_M, value_M)


def action_logps(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[Sequence[int]]],
    *,
    temperature: float = 1.0,
    with_values: bool = False,
    with_entropy: bool = False,
    micro_batch_tokens: int = 4096,
    keep: Sequence[Sequence[bool]] | None = None,
    prompt_gradient: bool = True,
    trace: Trace | None = None,
) -> Iterator[ActionLogps]:
    """Yield float32 log-probabilities of all completion tokens, [P][G] lists of ids, in deterministic micro-batches.

    keep: completions to compute, [P][G]; the others are not computed and do not appear, and row_M counts them all the same.
    prompt_gradient: False leaves out the gradient's path through what was computed at the prompt's tokens, which is most of the work where answers
    are short; the values are the same. Models whose attention cannot be replaced (tree_attention.py) give the whole gradient all the same.
    trace: what `sample` left of these completions; only while the weights are those that sampled them.
    Results do not depend on micro_batch_tokens beyond rounding, and are bit-identical for identical arguments.
    """
    for groups, real in _in_step(policy, prompt_ids, completion_ids, keep, micro_batch_tokens):
        micro = micro_batch_logps(
            policy,
            groups,
            temperature=temperature,
            with_values=with_values,
            with_entropy=with_entropy,
            prompt_gradient=prompt_gradient,
            trace=trace,
        )
        yield micro if real else micro.none()


@torch.no_grad()
def action_values(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[Sequence[int]]],
    *,
    micro_batch_tokens: int = 4096,
    keep: Sequence[Sequence[bool]] | None = None,
    trace: Trace | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The critic's values alone, as (value_M, row_M, time_M) per micro-batch: no logits, which are a third of a forward pass's work."""
    if policy.value_head is None:
        raise ValueError("action_values needs a policy loaded with value_head=True")
    value_head = policy.value_head
    for groups, real in _in_step(policy, prompt_ids, completion_ids, keep, micro_batch_tokens):

        def compute(groups: list[Group] = groups) -> tuple[Tensor, Tensor, Tensor]:
            hidden_MD, _, row_M, time_M = hidden_states(policy, groups, trace=trace)
            return value_head(hidden_MD.float())[:, 0], row_M, time_M

        value_M, row_M, time_M = policy.run(compute)
        if real:
            yield value_M, row_M, time_M


def _in_step(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[Sequence[int]]],
    keep: Sequence[Sequence[bool]] | None,
    micro_batch_tokens: int,
) -> Iterator[tuple[list[Group], bool]]:
    """The micro-batches, and whether each is real: of a sharded policy, processes with fewer than others run one token for nothing."""
    batches = plan(prompt_ids, completion_ids, keep, micro_batch_tokens)
    turns = policy.equal_turns(len(batches))  # before the first of them: who has none asks at once
    yield from ((groups, True) for groups in batches)
    for _ in range(len(batches), turns):
        yield [Group([policy.pad_token_id], (Member(0, [policy.pad_token_id]),))], False


def micro_batch_logps(
    policy: Policy,
    groups: list[Group],
    *,
    temperature: float,
    with_values: bool = False,
    with_entropy: bool = False,
    prompt_gradient: bool = True,
    trace: Trace | None = None,
) -> ActionLogps:
    """The forward pass of one micro-batch."""
    if with_values and policy.value_head is None:
        raise ValueError("with_values needs a policy loaded with value_head=True")

    def compute() -> tuple[Tensor | None, ...]:
        hidden_MD, target_M, row_M, time_M = hidden_states(policy, groups, prompt_gradient, trace)
        logp_M, entropy_M = token_logps(
            hidden_MD, target_M, policy.plain_head or policy.head, policy.vocabulary, temperature, with_entropy, policy.compute_dtype
        )
        value_M = policy.value_head(hidden_MD.float())[:, 0] if with_values else None
        return logp_M, row_M, time_M, entropy_M, value_M

    return ActionLogps(*policy.run(compute))


def hidden_states(
    policy: Policy, groups: list[Group], prompt_gradient: bool = True, trace: Trace | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Last hidden states that predict the actions, [M, D], with target_M, row_M and time_M."""
    with policy.autocast(), policy.checkpointing():
        if policy.is_encoder_decoder:
            batch = pad(groups, policy.pad_token_id, 0, policy.device, start_id=policy.decoder_start_id)
            output = policy.body(
                input_ids=batch.prompt_ids_BS,
                attention_mask=batch.prompt_mask_BS.long(),
                decoder_input_ids=batch.input_ids_BL,
                decoder_attention_mask=batch.mask_BL.long(),
                use_cache=False,
            )
        elif policy.config.model_type in FLAT_MODELS:
            if not prompt_gradient and all(len(group.prompt_ids) > 1 for group in groups):
                return _after_prompts(policy, groups)
            packed = pack(groups, policy.first_position, policy.device)
            hidden_ND = _flat_hidden(policy, packed, slice(None), packed.tree, (trace, trace.places(groups)) if trace and trace.ready else None)
            return hidden_ND.index_select(0, packed.source_M), packed.target_M, packed.row_M, packed.time_M
        else:
            batch = pad(groups, policy.pad_token_id, policy.first_position, policy.device)
            output = policy.body(input_ids=batch.input_ids_BL, attention_mask=batch.mask_BL.long(), position_ids=batch.position_BL, use_cache=False)
        return output.last_hidden_state[batch.source_M], batch.target_M, batch.row_M, batch.time_M


def _flat_hidden(policy: Policy, packed: Packed, part: slice, tree: TreePlan, traced: tuple[Trace, Tensor] | None = None) -> Tensor:
    """Last hidden states of a part of the flat row, [N, D]."""
    if can_fuse_update(policy):
        with torch.autocast("cpu", enabled=False):  # it casts by itself
            return flat_hidden(policy, packed.input_ids_N[part], packed.position_N[part], tree, traced)
    output = policy.body(
        input_ids=packed.input_ids_N[None, part],
        attention_mask=no_mask(policy.device),
        position_ids=packed.position_N[None, part],
        use_cache=False,
        tree=tree,
    )
    return output.last_hidden_state[0]


def _after_prompts(policy: Policy, groups: list[Group]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As hidden_states, on a flat micro-batch, the prompts first and without a graph. A prompt's last token predicts the first action and goes with
    the completions."""
    moved = [
        Group(group.prompt_ids[:-1], tuple(Member(member.row, [group.prompt_ids[-1], *member.token_ids]) for member in group.members))
        for group in groups
    ]
    packed = pack(moved, policy.first_position, policy.device)
    prompt_tokens = sum(len(group.prompt_ids) for group in moved)
    prompts, completions = packed.tree.in_two(prompt_tokens)

    with torch.no_grad():
        _flat_hidden(policy, packed, slice(None, prompt_tokens), prompts)
    hidden_ND = _flat_hidden(policy, packed, slice(prompt_tokens, None), completions)
    action_M = packed.time_M > 0  # the prompt's last token is no action
    source_M = packed.source_M[action_M] - prompt_tokens
    return hidden_ND.index_select(0, source_M), packed.target_M[action_M], packed.row_M[action_M], packed.time_M[action_M] - 1
