"""What sampling leaves for the update: the outputs of the layers' matrix products, token by token.

The first update after sampling runs the same tokens through the same weights, so it need not multiply again: its forward pass takes these outputs
and does only what lies between them (norms, rotations, attention, gates), which its backward pass needs anyway. After an optimiser step the
weights are others and a trace is worth nothing.

A trace is a log: each forward pass of the sampler appends its tokens, rows of finished completions leave no holes, and a token is found by its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rlaif.policy.packing import Group

TRACE_BYTES = 2**31
"""Larger ones are not kept. A fixed number, so that the same run takes the same way on any machine."""


class Products(NamedTuple):
    """Outputs of one layer's products, biases included, each [N, width] in the compute type."""

    qkv: Tensor
    out: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


class Trace:
    """Empty until `sample` fills it; stays empty (`ready` is False) where the sampler has no such products or they take more than `TRACE_BYTES`."""

    def __init__(self) -> None:
        self.layers: list[Products] = []
        self.used = 0
        self.group_size, self.most_tokens = 1, 0
        self.prompt_at: dict[int, range] = {}
        """Of each prompt of the batch: where its tokens are."""
        self.own_at: dict[int, list[int]] = defaultdict(list)
        """Of each completion, counted prompt by prompt: where its tokens are; the last one was never fed."""
        self._admitted: list[range] = []

    @property
    def ready(self) -> bool:
        return self.used > 0

    def begin(self, group_size: int, most_tokens: int) -> None:
        """For prompts with `group_size` completions each, at most so many tokens in all, a prompt's padding included."""
        self.group_size, self.most_tokens = group_size, most_tokens

    def reserve(self, layers: int, widths: Sequence[int], dtype: torch.dtype) -> bool:
        """Room for all tokens, whose memory is taken as they come; False if that would be too much."""
        if layers * self.most_tokens * sum(widths) * dtype.itemsize > TRACE_BYTES:
            return False
        self.layers = [Products(*(torch.empty(self.most_tokens, width, dtype=dtype) for width in widths)) for _ in range(layers)]
        return True

    def put(self, layer: int, made: Products) -> None:
        """Append what a pass of N tokens made in one layer; the last layer ends the pass."""
        N = len(made.qkv)
        for store, new in zip(self.layers[layer], made, strict=True):
            store[self.used : self.used + N] = new
        if layer == len(self.layers) - 1:
            self.used += N

    def admit(self, lengths: Sequence[int], padded_to: int) -> None:
        """The pass that was put last held prompts of these lengths, on the left of rows of `padded_to` tokens."""
        start = self.used - len(lengths) * padded_to
        self._admitted += [range(start + p * padded_to, start + p * padded_to + length) for p, length in enumerate(lengths)]

    def name_prompts(self, prompts: Sequence[int]) -> None:
        """Which prompts of the batch those were that have been admitted since the last call."""
        self.prompt_at.update(zip(prompts, self._admitted, strict=True))
        self._admitted = []

    def name_rows(self, rows: Sequence[int]) -> None:
        """Which completions the pass that was put last held, one token of each."""
        for at, row in enumerate(rows, start=self.used - len(rows)):
            self.own_at[row].append(at)

    def places(self, groups: Sequence[Group]) -> Tensor:
        """Where the tokens of a flat micro-batch are, [N], in `packing.pack`'s order."""
        prompts = [at for group in groups for at in self.prompt_at[group.members[0].row // self.group_size]]
        return torch.tensor(prompts + [at for group in groups for member in group.members for at in self.own_at[member.row]])

    def take(self, layer: int, places_N: Tensor) -> Products:
        return Products(*(store.index_select(0, places_N) for store in self.layers[layer]))
