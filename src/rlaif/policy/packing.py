"""Micro-batches without padding: prompts and completions laid end to end in one row of tokens, each prompt once for its whole group.

A flat micro-batch is [prompt 1, prompt 2, ..., completion 1.1, completion 1.2, ..., completion 2.1, ...] with position ids that go on after
the prompt for each of its completions. Matrix products see no padding at all; only attention (tree_attention.py) looks at a padded view.
A padded micro-batch is one row per completion, [prompt, completion, padding], for models whose attention cannot be replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Member:
    """A completion to score: its place in the caller's [B] rows, its tokens, and the last of them that count (normally all)."""

    row: int
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and the completions of it that go into one micro-batch."""

    prompt_ids: list[int]
    members: tuple[Member, ...]

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + sum(len(member.token_ids) for member in self.members)


def plan(
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[Sequence[int]]],
    keep: Sequence[Sequence[bool]] | None,
    micro_batch_tokens: int,
) -> list[list[Group]]:
    """Divide completions into micro-batches of at most `micro_batch_tokens` tokens (a prompt with one completion may exceed it alone).

    Groups are sorted by length, so that neighbours in attention's padded view are alike. A group that does not fit is divided, its prompt
    repeated. Deterministic: the same lengths give the same micro-batches. Empty completions and those not kept are left out.
    """
    groups: list[Group] = []
    row = 0
    for p, prompt in enumerate(prompt_ids):
        members = []
        for g, ids in enumerate(completion_ids[p]):
            if len(ids) and (keep is None or keep[p][g]):
                members.append(Member(row, list(ids)))
            row += 1
        members.sort(key=lambda member: (-len(member.token_ids), member.row))
        while members:
            take, total = 1, len(prompt) + len(members[0].token_ids)
            while take < len(members) and total + len(members[take].token_ids) <= micro_batch_tokens:
                total += len(members[take].token_ids)
                take += 1
            groups.append(Group(list(prompt), tuple(members[:take])))
            members = members[take:]
    # longest first: a batch that does not fit in memory fails in the first second, not in the last
    groups.sort(key=lambda group: (-len(group.members[0].token_ids), -len(group.prompt_ids), group.members[0].row))
    batches: list[list[Group]] = []
    size = 0
    for group in groups:
        if not batches or size + group.tokens > micro_batch_tokens:
            batches.append([])
            size = 0
        batches[-1].append(group)
        size += group.tokens
    return batches


@dataclass(frozen=True, slots=True)
class Packed:
    """A flat micro-batch of N tokens, of which M are actions.

    source_M: position in the flat row whose hidden state predicts action m (the prompt's last token for the first action).
    target_M: the action. row_M, time_M: where the action stands in the caller's [B, T].
    """

    input_ids_N: Tensor
    position_N: Tensor
    source_M: Tensor
    target_M: Tensor
    row_M: Tensor
    time_M: Tensor
    tree: TreePlan


@dataclass(frozen=True, slots=True)
class TreePlan:
    """How attention sees a flat micro-batch: prompts padded to [P, S], completions padded to [B, T].

    prompt_PS, completion_BT: flat positions, padding repeats position 0. parent_B: the prompt of each completion. visible_BTK: for query t of
    completion b, which of its S prompt keys and T own keys it sees. unpad_N: where flat token n lies in [P*S + B*T].
    stage: which part of the flat row goes through the model. prompt_memory: per layer, the prompts' keys and values, left by the first part for
    the second.
    """

    prompt_PS: Tensor
    completion_BT: Tensor
    parent_B: Tensor
    visible_BTK: Tensor
    unpad_N: Tensor
    stage: Literal["all", "prompts", "completions"] = "all"
    prompt_memory: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _biases: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def bias(self, repeats: int, dtype: torch.dtype) -> Tensor:
        """`visible_BTK` as numbers to add to scores, [B, 1, repeats * T, K]; made once for all layers."""
        if (repeats, dtype) not in self._biases:
            visible = self.visible_BTK[:, None].repeat(1, 1, repeats, 1)
            hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)
            self._biases[repeats, dtype] = hidden
        return self._biases[repeats, dtype]

    def in_two(self, prompt_tokens: int) -> tuple[TreePlan, TreePlan]:
        """Plans for the flat row's first `prompt_tokens` tokens and, after those have gone through, for the rest of it."""
        first = replace(self, stage="prompts", unpad_N=self.unpad_N[:prompt_tokens])
        rest = self.unpad_N[prompt_tokens:] - self.prompt_PS.numel()
        return first, replace(self, stage="completions", unpad_N=rest, completion_BT=(self.completion_BT - prompt_tokens).clamp(min=0))


def pack(groups: Sequence[Group], first_position: int, device: torch.device) -> Packed:
    """Lay out one micro-batch flat."""
    prompts = [group.prompt_ids for group in groups]
    members = [(p, member) for p, group in enumerate(groups) for member in group.members]
    starts_P, total = [], 0
    for prompt in prompts:
        starts_P.append(total)
        total += len(prompt)
    ids = [token for prompt in prompts for token in prompt]
    positions = [position for prompt in prompts for position in range(len(prompt))]
    sources, targets, rows, times, starts_B = [], [], [], [], []
    for p, member in members:
        start, length, offset = len(ids), len(member.token_ids), len(prompts[p])
        starts_B.append(start)
        # the last action is predicted but predicts nothing: it is not fed
        ids += member.token_ids[:-1]
        positions += range(offset, offset + length - 1)
        sources += [starts_P[p] + offset - 1, *range(start, start + length - 1)]
        targets += member.token_ids
        rows += [member.row] * length
        times += range(length)

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    length_P, length_B = tensor([len(prompt) for prompt in prompts]), tensor([len(member.token_ids) - 1 for _, member in members])
    parent_B, start_P, start_B = tensor([p for p, _ in members]), tensor(starts_P), tensor(starts_B)
    S, T = int(length_P.max()), max(1, int(length_B.max()))
    at_S, at_T = torch.arange(S, device=device), torch.arange(T, device=device)
    real_PS, real_BT = at_S < length_P[:, None], at_T < length_B[:, None]
    prompt_PS = torch.where(real_PS, start_P[:, None] + at_S, 0)
    completion_BT = torch.where(real_BT, start_B[:, None] + at_T, 0)
    causal_TT = at_T[:, None] >= at_T
    visible_BTK = torch.cat([real_PS[parent_B][:, None].expand(-1, T, -1), causal_TT.expand(len(members), -1, -1)], dim=-1)
    unpad_N = torch.cat([real_PS.flatten(), real_BT.flatten()]).nonzero()[:, 0]
    tree = TreePlan(prompt_PS, completion_BT, parent_B, visible_BTK, unpad_N)
    return Packed(tensor(ids), tensor(positions) + first_position, tensor(sources), tensor(targets), tensor(rows), tensor(times), tree)


@dataclass(frozen=True, slots=True)
class Padded:
    """A micro-batch of one row per completion; `mask_BL` is True on real tokens. source_M: (row, column) of the predicting hidden states.

    For encoder-decoder models `prompt_ids_BS` and `prompt_mask_BS` go to the encoder and the rest to the decoder.
    """

    input_ids_BL: Tensor
    mask_BL: Tensor
    position_BL: Tensor
    source_M: tuple[Tensor, Tensor]
    target_M: Tensor
    row_M: Tensor
    time_M: Tensor
    prompt_ids_BS: Any = None
    prompt_mask_BS: Any = None


def pad(
    groups: Sequence[Group],
    pad_id: int,
    first_position: int,
    device: torch.device,
    *,
    side: str = "right",
    extra: int = 0,
    start_id: int | None = None,
) -> Padded:
    """Lay out one micro-batch with one row per completion.

    side, extra: where padding goes and how much more of it than needed; the result must not depend on them (tests turn these knobs).
    start_id: the decoder's start token; when given, the prompt goes to the encoder and decoder rows are [start, completion without its last].
    """
    members = [(group, member) for group in groups for member in group.members]
    rows = [[start_id, *m.token_ids[:-1]] if start_id is not None else [*g.prompt_ids, *m.token_ids[:-1]] for g, m in members]
    longest = max(map(len, rows)) + extra
    ids, mask = _rectangle(rows, longest, pad_id, side, device)
    # positions come from the mask, so that they count real tokens wherever the padding is
    position = (mask.long().cumsum(-1) - 1).clamp(min=0) + first_position
    row_M, time_M, target_M, source_row, source_column = [], [], [], [], []
    for b, (group, member) in enumerate(members):
        offset = (longest - len(rows[b]) if side == "left" else 0) + (0 if start_id is not None else len(group.prompt_ids) - 1)
        count = len(member.token_ids)
        row_M += [member.row] * count
        time_M += range(count)
        target_M += member.token_ids
        source_row += [b] * count
        source_column += range(offset, offset + count)

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    prompt_ids = prompt_mask = None
    if start_id is not None:
        encoder_rows = [group.prompt_ids for group, _ in members]
        prompt_ids, prompt_mask = _rectangle(encoder_rows, max(map(len, encoder_rows)) + extra, pad_id, "right", device)
    source = (tensor(source_row), tensor(source_column))
    return Padded(ids, mask, position, source, tensor(target_M), tensor(row_M), tensor(time_M), prompt_ids, prompt_mask)


def _rectangle(rows: list[list[int]], longest: int, pad_id: int, side: str, device: torch.device) -> tuple[Tensor, Tensor]:
    def filled(row: list, value: int | bool) -> list:
        padding = [value] * (longest - len(row))
        return padding + row if side == "left" else row + padding

    ids = torch.tensor([filled(row, pad_id) for row in rows], dtype=torch.long, device=device)
    mask = torch.tensor([filled([True] * len(row), False) for row in rows], device=device)
    return ids, mask
