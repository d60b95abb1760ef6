"""Losses against numbers worked out by hand, and the invariances that a trainer leans on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.algos import kl, losses
from rlaif.algos.recipes import recipe_for

T = torch.tensor


def test_token_weight_by_hand():
    mask_BT = T([[True, True, False], [True, False, False], [False, False, False]])
    third = 1 / 3
    total = losses.Denominators.of(mask_BT)
    assert total == losses.Denominators(rows=2, tokens=3)
    torch.testing.assert_close(losses.token_weight(mask_BT, "token", total), T([[third, third, 0], [third, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(losses.token_weight(mask_BT, "sequence", total), T([[0.25, 0.25, 0], [0.5, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(losses.token_weight(mask_BT, "fixed_length", total, max_tokens=5), T([[0.1, 0.1, 0], [0.1, 0, 0], [0, 0, 0]]))
    with pytest.raises(ValueError, match="max_tokens"):
        losses.token_weight(mask_BT, "fixed_length", total)


def test_no_action_at_all_weighs_nothing():
    assert losses.token_weight(torch.zeros(2, 3, dtype=torch.bool), "token", losses.Denominators(0, 0)).sum() == 0


@given(st.lists(st.integers(0, 6), min_size=2, max_size=8), st.integers(1, 4), st.sampled_from(["token", "sequence", "fixed_length"]))
@settings(deadline=None)
def test_the_loss_does_not_depend_on_the_micro_batch_split(lengths, size, average):
    mask_BT = torch.arange(6)[None] < T(lengths)[:, None]
    loss_BT = torch.randn(len(lengths), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total = losses.Denominators.of(mask_BT)

    def part(rows: slice) -> torch.Tensor:
        return (losses.token_weight(mask_BT[rows], average, total, max_tokens=6).double() * loss_BT[rows]).sum()

    whole = part(slice(None))
    parts = sum(part(slice(i, i + size)) for i in range(0, len(lengths), size))
    torch.testing.assert_close(whole, parts, atol=1e-7, rtol=0)


def test_clipped_surrogate_by_hand():
    ratio_BT = T([[1.5, 0.5, 1.1, 1.5]])
    advantage_BT = T([[1.0, -1.0, 2.0, -1.0]])
    loss_BT, metrics = losses.clipped_surrogate(ratio_BT.log(), torch.zeros(1, 4), advantage_BT, clip_low=0.2, clip_high=0.3)
    # 1.5 up is cut at 1.3; 0.5 down at 0.8; 1.1 is inside; 1.5 with a negative advantage is not cut: the larger loss counts.
    torch.testing.assert_close(loss_BT, T([[-1.3, 0.8, -2.2, 1.5]]))
    assert metrics["clip_fraction"].tolist() == [[1, 1, 0, 0]]
    torch.testing.assert_close(metrics["approx_kl"][0, 0], T(1.5 - 1 - math.log(1.5)))


def test_clipped_tokens_have_no_gradient_and_others_have_minus_ratio_times_advantage():
    logp_BT = T([[1.5, 1.1]]).log().requires_grad_()
    losses.clipped_surrogate(logp_BT, torch.zeros(1, 2), T([[1.0, 2.0]]), clip_low=0.2, clip_high=0.2)[0].sum().backward()
    torch.testing.assert_close(logp_BT.grad, T([[0.0, -2.2]]))


def test_gspo_by_hand():
    logp_BT = T([[0.2, 0.4, 99.0]])
    mask_BT = T([[True, True, False]])
    loss_BT, _ = losses.gspo_surrogate(logp_BT, torch.zeros(1, 3), T([[2.0, 2.0, 2.0]]), mask_BT, clip_low=0.5, clip_high=0.5)
    summed = (losses.token_weight(mask_BT, "sequence", losses.Denominators.of(mask_BT)) * loss_BT).sum()
    torch.testing.assert_close(summed, T(-2 * math.exp(0.3)))
    clipped_BT, metrics = losses.gspo_surrogate(logp_BT, torch.zeros(1, 3), T([[2.0, 2.0, 2.0]]), mask_BT, clip_low=0.1, clip_high=0.1)
    torch.testing.assert_close(clipped_BT[0, 0], T(-2.2))
    assert metrics["clip_fraction"][0, 0] == 1


def test_a_whole_completion_is_one_action_in_rloo():
    """Its ratio is the product of its tokens' ratios, and on policy its gradient at every token is -A / rows."""
    logp_BT = T([[0.02, 0.04, 99.0], [0.0, 99.0, 99.0]], requires_grad=True)
    mask_BT = T([[True, True, False], [True, False, False]])
    weight_BT = losses.token_weight(mask_BT, "sequence", losses.Denominators.of(mask_BT))
    loss_BT, _ = losses.sequence_surrogate(logp_BT, torch.zeros(2, 3), T([[2.0] * 3, [1.0] * 3]), mask_BT, clip_low=0.2, clip_high=0.2)
    torch.testing.assert_close((weight_BT * loss_BT).sum(), T(-(2 * math.exp(0.06) + 1) / 2))
    loss_BT, _ = losses.sequence_surrogate(logp_BT, logp_BT.detach(), T([[2.0] * 3, [1.0] * 3]), mask_BT, clip_low=0.2, clip_high=0.2)
    (weight_BT * loss_BT).sum().backward()
    torch.testing.assert_close(logp_BT.grad, T([[-1.0, -1.0, 0.0], [-0.5, 0.0, 0.0]]))


def test_value_loss_by_hand():
    # V 1.0, V_old 0.5, R 2.0, clip 0.2: clipped V is 0.7, its error 1.3 is the larger. V 0.4 within the clip: plain.
    got_BT = losses.value_loss(T([[1.0, 0.4]]), T([[0.5, 0.5]]), T([[2.0, 0.0]]), clip=0.2)
    torch.testing.assert_close(got_BT, T([[0.5 * 1.69, 0.5 * 0.16]]))


def test_truncated_importance_weight_is_capped_and_carries_no_gradient():
    logp_BT = T([[0.0, 2.0, -1.0]], requires_grad=True)
    got_BT = losses.truncated_importance_weight(logp_BT, torch.zeros(1, 3), cap=2.0)
    torch.testing.assert_close(got_BT, T([[1.0, 2.0, math.exp(-1)]]))
    assert not got_BT.requires_grad


def test_dpo_and_bradley_terry_by_hand():
    loss_B, metrics = losses.dpo_loss(T([-1.0]), T([-2.0]), T([-1.5]), T([-1.0]), beta=0.5)
    torch.testing.assert_close(loss_B, T([math.log(1 + math.exp(-0.75))]))
    torch.testing.assert_close(metrics["reward_margin"], T([0.75]))
    soft_B, _ = losses.dpo_loss(T([-1.0]), T([-2.0]), T([-1.5]), T([-1.0]), beta=0.5, label_smoothing=0.25)
    torch.testing.assert_close(soft_B, T([0.75 * math.log(1 + math.exp(-0.75)) + 0.25 * math.log(1 + math.exp(0.75))]))
    torch.testing.assert_close(losses.bradley_terry_loss(T([2.0]), T([0.5])), T([math.log(1 + math.exp(-1.5))]))


def test_explained_variance():
    mask_BT = T([[True, True, True, False]])
    returns_BT = T([[0.0, 1.0, 2.0, 50.0]])
    assert losses.explained_variance(returns_BT, returns_BT, mask_BT) == pytest.approx(1.0)
    assert losses.explained_variance(torch.ones(1, 4), returns_BT, mask_BT) == pytest.approx(0.0)
    assert math.isnan(losses.explained_variance(returns_BT, torch.ones(1, 4), mask_BT))


def test_kl_estimators_by_hand():
    logp, ref = T([0.5]), T([0.2])
    torch.testing.assert_close(kl.kl_k1(logp, ref), T([0.3]))
    torch.testing.assert_close(kl.kl_k2(logp, ref), T([0.045]))
    torch.testing.assert_close(kl.kl_k3(logp, ref), T([math.exp(-0.3) - 1 + 0.3]))


def _categorical():
    logits = T([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    ref_logp = torch.log_softmax(T([-0.5, 0.4, 0.1], dtype=torch.float64), 0)
    logp = torch.log_softmax(logits, 0)
    exact = (logp.exp() * (logp - ref_logp)).sum()
    (exact_grad,) = torch.autograd.grad(exact, logits, retain_graph=True)
    return logits, logp, ref_logp, exact, exact_grad


def test_the_kl_loss_has_the_value_and_the_gradient_of_the_kl():
    """Summed exactly over a small vocabulary, with the sampling probabilities held fixed as they are in training."""
    logits, logp, ref_logp, exact, exact_grad = _categorical()
    probability = logp.detach().exp()
    loss = (probability * kl.kl_loss(logp, logp.detach(), ref_logp)).sum()
    torch.testing.assert_close(loss, exact.detach(), check_dtype=True)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], exact_grad)


def test_k1_in_the_loss_would_teach_nothing_and_k3_the_wrong_thing():
    logits, logp, ref_logp, _, exact_grad = _categorical()
    probability = logp.detach().exp()
    (k1_grad,) = torch.autograd.grad((probability * kl.kl_k1(logp, ref_logp)).sum(), logits, retain_graph=True)
    (k2_grad,) = torch.autograd.grad((probability * kl.kl_k2(logp, ref_logp)).sum(), logits, retain_graph=True)
    (k3_grad,) = torch.autograd.grad((probability * kl.kl_k3(logp, ref_logp)).sum(), logits)
    assert k1_grad.abs().max() < 1e-12
    torch.testing.assert_close(k2_grad, exact_grad)
    assert (k3_grad - exact_grad).abs().max() > 1e-2


def test_recipes_differ_where_their_papers_do():
    assert recipe_for("ppo").critic and recipe_for("ppo").kl_in_reward
    assert not any(recipe_for(a).critic for a in ("grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo", "raft"))
    assert (recipe_for("grpo").average, recipe_for("dr_grpo").average, recipe_for("dapo").average) == ("sequence", "fixed_length", "token")
    assert (recipe_for("grpo").scale_by_std, recipe_for("dr_grpo").scale_by_std) == (True, False)
    assert recipe_for("dapo").clip_high == 0.28 and recipe_for("dapo", clip_high=0.25).clip_high == 0.25
    assert recipe_for("gspo").clip_low == 3e-4
    assert recipe_for("grpo", clip=0.1).clip_high == 0.1


def test_shapes_in_annotations_are_checked():
    """tests/conftest.py installs beartype over `algos`: a transposed or integer tensor is refused, not broadcast."""
    with pytest.raises(Exception, match="old_logp_BT"):
        losses.clipped_surrogate(torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3), clip_low=0.2, clip_high=0.2)
    with pytest.raises(Exception, match="mask_BT"):
        losses.token_weight(torch.zeros(2, 3), "token", losses.Denominators(1, 1))
