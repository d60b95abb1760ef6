"""From hidden states at action positions to log-probabilities, in float32 and in chunks.

logits_NV = hidden_ND @ W_VD^T is the largest tensor of an update (N actions x vocabulary). In float32 it exists for one chunk of actions at a
time. The forward pass keeps the probabilities for the backward pass, in the compute type, where that takes at most `KEEP_BYTES`; beyond that
it keeps only log p(target) and the entropy, and the backward pass computes each chunk's logits again (a quarter more work, no more memory).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from rlaif.policy.linear import PackedLinear

CHUNK_BYTES = 96 * 2**20
"""Size of one chunk of float32 logits."""
CACHE_BYTES = 4 * 2**20
"""Size of the part of it that is worked on at a time."""
PACK_ROWS = 384
"""From so many actions on the weight is brought into the layout that oneDNN computes in: a fifth less time for float32 products with it."""
KEEP_BYTES = 2**29
"""Probabilities of one micro-batch that may be kept from the forward to the backward pass."""


def token_logps(
    hidden_ND: Tensor,
    target_N: Tensor,
    head: Callable[[Tensor], Tensor],
    vocabulary: int,
    temperature: float,
    with_entropy: bool,
    backward_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """log p(target_n) and, if asked, the entropy in nats of the distribution it came from; both float32 [N], differentiable.

    head: hidden states to logits; p is softmax(logits / temperature). The values are computed in float32 throughout. backward_dtype: type of
    the two products of the backward pass, the compute type of the layers below. Heads that are more than one matrix (RoBERTa's, or one with
    a bias) take a plain path with the same results.
    """
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    if isinstance(head, nn.Linear) and head.bias is None:
        keep = torch.is_grad_enabled() and len(hidden_ND) * vocabulary * backward_dtype.itemsize <= KEEP_BYTES
        logp_N, entropy_N = _LinearLogps.apply((hidden_ND.float() / temperature), head.weight, target_N, rows, with_entropy, backward_dtype, keep)
        return logp_N, entropy_N if with_entropy else None

    def chunk_logps(hidden_nD: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden_nD.device.type, enabled=False):
            logits_nV = head(hidden_nD.float()).float() / temperature
        lse_n = logits_nV.logsumexp(-1)
        logp_n = logits_nV.gather(1, target_n[:, None])[:, 0] - lse_n
        entropy_n = lse_n - (logits_nV.softmax(-1) * logits_nV).sum(-1) if with_entropy else logp_n.new_zeros(0)
        return logp_n, entropy_n

    parts = [
        checkpoint(chunk_logps, hidden_nD, target_n, use_reentrant=False)
        for hidden_nD, target_n in zip(hidden_ND.split(rows), target_N.split(rows), strict=True)
    ]
    logp_N = torch.cat([logp for logp, _ in parts])
    return logp_N, torch.cat([entropy for _, entropy in parts]) if with_entropy else None


class _LinearLogps(torch.autograd.Function):
    """log softmax(x W^T)[target] and its entropy H, without keeping x W^T.

    With p = softmax(z): d logp/dz = onehot(target) - p, and dH/dz = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, rows: int, with_entropy: bool, backward_dtype: torch.dtype, keep: bool
    ) -> tuple[Tensor, Tensor]:
        logps, entropies = [], []
        prob_NV = hidden_ND.new_empty(len(hidden_ND), len(weight_VD), dtype=backward_dtype) if keep else None
        if len(hidden_ND) >= PACK_ROWS and hidden_ND.device.type == "cpu":
            product = PackedLinear(torch.float32, hidden_ND.device)
            product.load(weight_VD, None, rows)
        else:
            product = partial(nn.functional.linear, weight=weight_VD.float())
        few = max(1, CACHE_BYTES // (4 * len(weight_VD)))
        spare_fV = hidden_ND.new_empty(min(few, len(hidden_ND)) if with_entropy else 0, len(weight_VD))

        def work(chunk_nV: Tensor, start: int) -> None:
            # the product is best large, and what follows goes over it many times: a few rows at a time stay in the cache meanwhile
            for row in range(0, len(chunk_nV), few):
                logits_fV, target_f = chunk_nV[row : row + few], target_N[start + row : start + min(row + few, len(chunk_nV))]
                # in place, and log p by the same operations with and without the entropy: the bits must not depend on what else is asked for
                chosen_f, highest_f1 = logits_fV.gather(1, target_f[:, None])[:, 0], logits_fV.amax(-1, keepdim=True)
                logits_fV.sub_(highest_f1)
                exp_fV = torch.exp(logits_fV, out=spare_fV[: len(target_f)]) if with_entropy else logits_fV.exp_()
                sum_f = exp_fV.sum(-1)
                logps.append(chosen_f - highest_f1[:, 0] - sum_f.log())
                if with_entropy:
                    entropies.append(sum_f.log() - logits_fV.mul_(exp_fV).sum(-1) / sum_f)
                if prob_NV is not None:
                    torch.div(exp_fV, sum_f[:, None], out=prob_NV[start + row : start + row + len(target_f)])

        for start in range(0, len(hidden_ND), rows):
            work(product(hidden_ND[start : start + rows]), start)
        logp_N = torch.cat(logps)
        entropy_N = torch.cat(entropies) if with_entropy else logp_N.new_zeros(0)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, entropy_N)
        ctx.rows, ctx.dtype, ctx.prob_NV = rows, backward_dtype, prob_NV
        return logp_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logp_N: Tensor, grad_entropy_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, target_N, entropy_N = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        dtype, rows = ctx.dtype, ctx.rows
        weight = weight_VD.to(dtype)
        entropic = len(entropy_N) > 0 and bool(grad_entropy_N.any())
        prob_NV, ctx.prob_NV = ctx.prob_NV, None  # used up in place; a second backward pass computes it anew
        if prob_NV is not None and not entropic:
            grad_N1 = grad_logp_N[:, None].to(dtype)
            grad_NV = _add_at(prob_NV.mul_(-grad_N1), target_N, grad_N1)
            return (
                (grad_NV @ weight).to(hidden_ND.dtype) if needs_hidden else None,
                (grad_NV.t() @ hidden_ND.to(dtype)).to(weight_VD.dtype) if needs_weight else None,
                *[None] * 5,
            )
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD) if needs_weight else None
        for start in range(0, len(hidden_ND), rows):
            part = slice(start, start + rows)
            hidden_nD, grad_n1 = hidden_ND[part].to(dtype), grad_logp_N[part, None]
            logits_nV = hidden_nD @ weight.t()
            if entropic:
                logp_nV = logits_nV.float().log_softmax(-1)
                factor_nV = (logp_nV + entropy_N[part, None]).mul_(grad_entropy_N[part, None]).add_(grad_n1)
                grad_nV = logp_nV.exp_().mul_(factor_nV).neg_().to(dtype)
            else:
                grad_nV = logits_nV.softmax(-1).mul_(-grad_n1.to(dtype))
            _add_at(grad_nV, target_N[part], grad_n1.to(dtype))
            if needs_hidden:
                grad_hidden_ND[part] = grad_nV @ weight
            if needs_weight:
                grad_weight_VD += grad_nV.t() @ hidden_nD
        return grad_hidden_ND, grad_weight_VD, *[None] * 5


def _add_at(grad_NV: Tensor, target_N: Tensor, grad_N1: Tensor) -> Tensor:
    """In place, one number a row. `scatter_add_` does the same on CPU by way of a float32 copy of the whole tensor."""
    row_N = torch.arange(len(target_N), device=target_N.device)
    grad_NV[row_N, target_N] += grad_N1[:, 0]
    return grad_NV
