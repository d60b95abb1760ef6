"""Reading without writing: the last hidden states of many texts that begin alike, through the fused layers of `fused.py`.

For whoever scores texts with a frozen model, as a judge does. The beginning is run once and its keys and values kept; the rest of each text is
laid end to end with the others, so that matrix products see no padding, and of the last layer only what was asked for is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from rlaif.policy.fused import FusedWeights
from rlaif.policy.model import Policy


@dataclass(frozen=True, slots=True)
class Prefix:
    """What texts share: its length in tokens, and of every layer its keys and values, each [kv heads, tokens, head size]."""

    length: int
    kv: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Text:
    """A text after the prefix: its body, and endings that each follow the body and do not see one another."""

    body: list[int]
    endings: list[list[int]]


class Reader:
    """Over a frozen policy for which `can_fuse` holds. Keeps the policy's own weights where they are in the compute type already."""

    def __init__(self, policy: Policy) -> None:
        self.weights = FusedWeights(policy, frozen=True)
        self.weights.refresh(policy, 0)
        w = self.weights
        self.repeats = w.heads // w.kv_heads
        nothing = torch.empty(w.kv_heads, 0, w.size, dtype=w.dtype, device=w.device)
        self.empty = Prefix(0, [(nothing, nothing) for _ in w.layers])

    @torch.inference_mode()
    def extend(self, prefix: Prefix, token_ids: Sequence[int]) -> Prefix:
        """The prefix with more tokens at its end."""
        kv: list[tuple[Tensor, Tensor]] = []
        self._run(prefix, [Text(list(token_ids), [])], wanted_N=torch.zeros(0, dtype=torch.long), keep=kv)
        return Prefix(prefix.length + len(token_ids), kv)

    @torch.inference_mode()
    def read(self, prefix: Prefix, texts: Sequence[Text]) -> Tensor:
        """Hidden states, after the final norm, at the last token of each ending: [texts, endings, D] in the compute type.

        Every text has the same number of endings, none of them empty.
        """
        ends, at = [], 0
        for text in texts:
            at += len(text.body)
            for ending in text.endings:
                at += len(ending)
                ends.append(at - 1)
        hidden_MD = self._run(prefix, texts, wanted_N=torch.tensor(ends), keep=None)
        w = self.weights
        normed_MD = rms_norm(hidden_MD, hidden_MD.shape[-1:], w.norm_out, w.eps).to(w.dtype)
        return normed_MD.view(len(texts), -1, normed_MD.shape[-1])

    def _run(self, prefix: Prefix, texts: Sequence[Text], wanted_N: Tensor, keep: list[tuple[Tensor, Tensor]] | None) -> Tensor:
        w, past, device = self.weights, prefix.length, self.weights.device
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        columns: list[int] = []
        longest = max(len(text.body) + sum(map(len, text.endings)) for text in texts)
        causal_TT = torch.ones(longest, longest, dtype=torch.bool).tril()
        plain = all(len(text.endings) < 2 for text in texts)  # then one mask serves all: padding stands where no real token looks
        visible_BTT = causal_TT[None].repeat(1 if plain else len(texts), 1, 1)
        for row, text in enumerate(texts):
            at = len(text.body)
            ids += text.body
            positions += range(past, past + at)
            for ending in text.endings:
                ids += ending
                positions += range(past + len(text.body), past + len(text.body) + len(ending))
                if not plain:
                    visible_BTT[row, at : at + len(ending), len(text.body) : at] = False
                at += len(ending)
            rows += [row] * at
            columns += range(at)
        B, T = len(texts), longest
        place_N = torch.tensor(rows, device=device) * T + torch.tensor(columns, device=device)
        flat_BT = torch.zeros(B * T, dtype=torch.long, device=device)
        flat_BT[place_N] = torch.arange(len(ids), device=device)
        visible_BTS = torch.cat([torch.ones(len(visible_BTT), T, past, dtype=torch.bool), visible_BTT], dim=-1)
        bias = torch.zeros(visible_BTS.shape, dtype=w.dtype).masked_fill_(~visible_BTS, torch.finfo(w.dtype).min)
        # heads that share keys are further query positions of them, so that keys are not repeated
        bias = bias[:, None].repeat(1, 1, self.repeats, 1).to(device)

        def attend(index: int, q_NHD: Tensor, k_NhD: Tensor, v_NhD: Tensor) -> Tensor:
            q, k, v = (
                x.to(w.dtype).index_select(0, flat_BT).view(B, T, -1, w.size).transpose(1, 2) for x in (q_NHD, k_NhD, v_NhD)
            )  # [B, heads, T, size]
            if past:
                k, v = (torch.cat([kept.expand(B, -1, -1, -1), new], dim=2) for kept, new in zip(prefix.kv[index], (k, v), strict=True))
            if keep is not None:
                keep.append((k[0], v[0]))
            q = q.reshape(B, w.kv_heads, self.repeats * T, w.size)
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
            mixed = mixed.reshape(B, w.heads, T, w.size).transpose(1, 2).reshape(B * T, -1)
            return mixed.index_select(0, place_N)

        token_N, position_N = torch.tensor(ids, device=device), torch.tensor(positions, device=device)
        return w.run(token_N, position_N, attend, wanted_N=wanted_N.to(device))
