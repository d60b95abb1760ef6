"""Attention for the update on a processor: softmax(scale * q k^T + bias) v, with the probabilities kept for the backward pass where that pays.

PyTorch's fused kernel keeps none: its backward pass computes scores and exponentials again, and takes longer in bfloat16 than in float32. Here
the scores and their softmax are float32 as there; the probabilities are then rounded to the compute type, as is the gradient by the scores, and
the five products that read them run in it. For rows of a few hundred tokens that halves attention's time; longer ones go to the fused kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

KEEP_BYTES = 2**25
"""Probabilities of one call that may be kept; there is a call for each layer, and all of them are kept until the backward pass."""
CACHE_BYTES = 4 * 2**20
"""Size of the float32 scores that are worked on at a time."""


def attend(q_BhQD: Tensor, k_BhKD: Tensor, v_BhKD: Tensor, bias: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """[B, h, Q, D], differentiable. q and k are float32, v and the result of the compute type `dtype`.

    bias, [1 or B, 1, Q, K], is added to the scores.
    """
    (B, h, Q, _), K = q_BhQD.shape, k_BhKD.shape[2]
    if B == 0:  # a part of a micro-batch without prompts, or without completions
        return q_BhQD.to(dtype)
    if dtype == torch.float32 or B * h * Q * K * dtype.itemsize > KEEP_BYTES:
        return scaled_dot_product_attention(q_BhQD, k_BhKD, v_BhKD.float(), attn_mask=bias, scale=scale).to(dtype)
    return _Kept.apply(q_BhQD, k_BhKD, v_BhKD, bias.expand(B, -1, -1, -1), scale)  # pyright: ignore[reportReturnType]


def _parts(prob_BhQK: Tensor) -> list[slice]:
    """A few rows of B at a time."""
    some = max(1, CACHE_BYTES // (4 * prob_BhQK[0].numel()))
    return [slice(start, start + some) for start in range(0, len(prob_BhQK), some)]


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """Product of the last two axes of [b, h, ...]."""
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, a.shape[:2])


class _Kept(torch.autograd.Function):
    """With P = softmax(S) and O = P V: dV = P^T dO, dS = P * (dP - rowsum(P * dP)) for dP = dO V^T, dQ = dS K, dK = dS^T Q."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        q = q * scale
        out, prob = q.new_empty(q.shape, dtype=v.dtype), q.new_empty(*q.shape[:3], k.shape[2], dtype=v.dtype)
        for part in _parts(prob):
            scores = _bmm(q[part], k[part].mT).add_(bias[part])
            prob[part] = scores.softmax(-1)
            out[part] = _bmm(prob[part], v[part])
        ctx.save_for_backward(q.to(v.dtype), k.to(v.dtype), v, prob)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, prob = ctx.saved_tensors
        by_q, by_k = (x.new_empty(x.shape, dtype=torch.float32) for x in (q, k))
        by_v = torch.empty_like(v)
        for part in _parts(prob):
            by_v[part] = _bmm(prob[part].mT, grad[part])
            by_prob = _bmm(grad[part], v[part].mT)
            by_scores = torch._softmax_backward_data(by_prob, prob[part], -1, v.dtype)  # sums in float32
            by_q[part] = _bmm(by_scores, k[part])
            by_k[part] = _bmm(by_scores.mT, q[part])  # q is scaled already
        return by_q.mul_(ctx.scale), by_k, by_v, None, None
