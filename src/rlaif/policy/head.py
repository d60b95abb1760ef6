"""From hidden states at action positions to log-probabilities, in float32 and in chunks.

logits_NV = hidden_ND @ W_VD^T is the largest tensor of an update (N actions x vocabulary). It exists for one chunk of actions at a time:
the forward pass keeps only log p(target) and the log normaliser, and the backward pass computes the chunk's logits again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 64 * 2**20
"""Size of one chunk of float32 logits."""


def token_logps(
    hidden_ND: Tensor, target_N: Tensor, head: Callable[[Tensor], Tensor], vocabulary: int, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """log p(target_n) and, if asked, the entropy in nats of the distribution it came from; both float32 [N], differentiable.

    head: hidden states to logits. Both are of softmax(logits / temperature).
    """

    def chunk_logps(hidden_nD: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden_nD.device.type, enabled=False):
            logits_nV = head(hidden_nD.float()).float() / temperature
        lse_n = logits_nV.logsumexp(-1)
        logp_n = logits_nV.gather(1, target_n[:, None])[:, 0] - lse_n
        entropy_n = lse_n - (logits_nV.softmax(-1) * logits_nV).sum(-1) if with_entropy else logp_n.new_zeros(0)
        return logp_n, entropy_n

    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    parts = [
        checkpoint(chunk_logps, hidden_nD, target_n, use_reentrant=False)
        for hidden_nD, target_n in zip(hidden_ND.split(rows), target_N.split(rows), strict=True)
    ]
    logp_N = torch.cat([logp for logp, _ in parts])
    return logp_N, torch.cat([entropy for _, entropy in parts]) if with_entropy else None
