"""Per-token estimators of KL(policy || reference) from samples of the policy (Schulman, "Approximating KL divergence", 2020).

With log-ratio d = logp - ref_logp at a sampled token: k1 = d (unbiased, high variance), k2 = d²/2 (its gradient is the KL's),
k3 = exp(-d) - 1 + d (unbiased, never negative). k1 belongs in the reward only: as a loss its expected gradient is zero.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def kl_k1(logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """d = logp - ref_logp, in nats. For the reward, never for the loss."""
    return logp - ref_logp


def kl_k2(logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """d² / 2, in nats² / 2. On policy its gradient is an unbiased estimate of the KL's gradient."""
    return 0.5 * (logp - ref_logp).square()


def kl_k3(logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """exp(-d) - 1 + d, in nats; zero only where both agree."""
    negative_d = ref_logp - logp
    return negative_d.exp() - 1 - negative_d


def kl_loss(logp: Float[Tensor, "*shape"], old_logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """k3 weighted by the importance ratio exp(logp - old_logp): value *and* gradient are unbiased (DeepSeek-V3.2, arXiv 2512.02556, eq. 7).

    Plain k3 in a loss has the gradient of the wrong direction of the KL, since the sampling distribution's own gradient is missing.
    The ratio is 1 on policy and carries exactly that gradient.
    """
    return (logp - old_logp).exp() * kl_k3(logp, ref_logp)
