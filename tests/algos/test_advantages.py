"""Advantages against numbers worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.algos import advantages as adv

T = torch.tensor


def test_token_reward_is_kl_at_each_action_plus_reward_at_the_last():
    mask_BT = T([[True, True, False], [True, False, False], [False, False, False]])
    kl_BT = T([[0.5, -0.25, 9.0], [1.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    got_BT = adv.token_reward(T([1.0, 0.5, 0.7]), kl_BT, mask_BT, 0.1)
    torch.testing.assert_close(got_BT, T([[-0.05, 1.025, 0.0], [0.4, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_gae_by_hand():
    # gamma 0.5, lambda 0.5. Row 0, last step: delta = 1 - 0.4 = 0.6. Step 0: delta = 0 + 0.5 * 0.4 - 0.2 = 0, A = 0 + 0.25 * 0.6 = 0.15.
    mask_BT = T([[True, True, False], [True, False, False]])
    reward_BT = T([[0.0, 1.0, 7.0], [0.5, 7.0, 7.0]])
    value_BT = T([[0.2, 0.4, 5.0], [0.1, 5.0, 5.0]])
    advantage_BT, return_BT = adv.gae(reward_BT, value_BT, mask_BT, gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantage_BT, T([[0.15, 0.6, 0.0], [0.4, 0.0, 0.0]]))
    torch.testing.assert_close(return_BT, T([[0.35, 1.0, 0.0], [0.5, 0.0, 0.0]]))


def test_gae_with_lambda_one_is_return_minus_value():
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    value_BT = T([[0.3, -0.1, 0.8, 0.2]])
    advantage_BT, return_BT = adv.gae(T([[0.0, 0.0, 0.0, 2.0]]), value_BT, mask_BT, gamma=1.0, lam=1.0)
    torch.testing.assert_close(advantage_BT, 2.0 - value_BT)
    torch.testing.assert_close(return_BT, torch.full((1, 4), 2.0))


def test_gae_refuses_a_mask_with_holes():
    with pytest.raises(ValueError, match="holes"):
        adv.gae(torch.zeros(1, 3), torch.zeros(1, 3), T([[True, False, True]]), 1.0, 1.0)


def test_group_means_by_hand():
    mask_BT = torch.tensor([[True, True], [True, False], [True, True], [False, False]])
    got_BT = adv.centre_groups(T([[1.0, 3.0], [4.0, 9.0], [5.0, 7.0], [8.0, 8.0]]), mask_BT, 2)
    # group one: row means 2 and 4, so 3 goes from each; group two: one row has no action, the other's mean is 6
    torch.testing.assert_close(got_BT, T([[-2.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="no groups of 3"):
        adv.centre_groups(T([[1.0], [2.0]]), torch.ones(2, 1, dtype=torch.bool), 3)


def test_whiten_over_the_mask_only():
    mask_BT = T([[True, True], [True, False]])
    got_BT = adv.whiten(T([[1.0, 2.0], [3.0, 100.0]]), mask_BT)
    unit = (2 / 3) ** 0.5  # biased standard deviation of 1, 2, 3
    torch.testing.assert_close(got_BT, T([[-1 / unit, 0.0], [1 / unit, 0.0]]), atol=1e-6, rtol=1e-6)


def test_whiten_of_a_constant_is_zero():
    assert adv.whiten(torch.full((2, 2), 3.0), torch.ones(2, 2, dtype=torch.bool)).abs().max() == 0


REWARDS = T([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.2, 0.8, 0.4, 0.0]])
ALL = torch.ones_like(REWARDS, dtype=torch.bool)


def test_group_advantage_grpo():
    got_PG = adv.group_advantage(REWARDS, ALL, scale_by_std=True, eps=1e-12)
    std = (1 / 3) ** 0.5  # unbiased, of 1 0 0 1
    torch.testing.assert_close(got_PG[0], T([0.5, -0.5, -0.5, 0.5]) / std)
    assert got_PG[1].abs().max() == 0
    torch.testing.assert_close(got_PG[2], T([-0.15, 0.45, 0.05, -0.35]) / ((0.15**2 + 0.45**2 + 0.05**2 + 0.35**2) / 3) ** 0.5)


def test_group_advantage_dr_grpo_is_only_centred():
    torch.testing.assert_close(adv.group_advantage(REWARDS, ALL, scale_by_std=False)[2], T([-0.15, 0.45, 0.05, -0.35]))


def test_a_sample_nobody_scored_leaves_the_baseline_and_the_advantage():
    valid_PG = T([[True, True, True, False]])
    got_PG = adv.group_advantage(T([[1.0, 0.0, 0.5, 99.0]]), valid_PG, scale_by_std=False)
    torch.testing.assert_close(got_PG, T([[0.5, -0.5, 0.0, 0.0]]))
    rloo_PG = adv.rloo_advantage(T([[1.0, 0.0, 0.5, 99.0]]), valid_PG)
    torch.testing.assert_close(rloo_PG, T([[0.75, -0.75, 0.0, 0.0]]))


def test_rloo_by_hand():
    got_PG = adv.rloo_advantage(REWARDS, ALL)
    torch.testing.assert_close(got_PG[0], T([2 / 3, -2 / 3, -2 / 3, 2 / 3]))
    torch.testing.assert_close(got_PG[2], T([-0.2, 0.6, 1 / 15, -1.4 / 3]))


def test_one_valid_sample_has_no_baseline():
    valid_PG = T([[True, False]])
    assert adv.rloo_advantage(T([[1.0, 0.0]]), valid_PG).abs().max() == 0
    assert adv.group_advantage(T([[1.0, 0.0]]), valid_PG, scale_by_std=True).abs().max() == 0


@pytest.mark.parametrize("estimator", [lambda r, v: adv.group_advantage(r, v, scale_by_std=True), adv.rloo_advantage])
def test_a_group_of_one_is_an_error(estimator):
    with pytest.raises(ValueError, match="group of one"):
        estimator(torch.ones(3, 1), torch.ones(3, 1, dtype=torch.bool))


def test_equal_within_tolerance_has_no_signal():
    reward_PG = T([[0.3, 0.3 + 1e-8], [0.3, 0.31]])
    assert adv.has_signal(reward_PG, torch.ones(2, 2, dtype=torch.bool)).tolist() == [False, True]
    assert adv.has_signal(reward_PG, torch.zeros(2, 2, dtype=torch.bool)).tolist() == [False, False]


def test_reinforce_pp_whitens_returns_over_the_batch():
    mask_BT = T([[True, True], [True, False]])
    got_BT = adv.reinforce_pp_advantage(T([[0.0, 1.0], [0.0, 0.0]]), mask_BT)
    # returns 1, 1, 0: mean 2/3, biased variance 2/9
    torch.testing.assert_close(got_BT, T([[1 / 3, 1 / 3], [-2 / 3, 0.0]]) / (2 / 9) ** 0.5 * T([[1.0, 1.0], [1.0, 1.0]]), atol=1e-6, rtol=1e-6)


def test_raft_keeps_the_best_of_groups_with_signal():
    got_PG = adv.raft_weight(REWARDS, T([[False, True, True, True], [True] * 4, [True] * 4]))
    assert got_PG.tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_soft_overlong_penalty():
    got_B = adv.soft_overlong_penalty(T([10, 80, 90, 100, 120]), max_tokens=100, buffer_tokens=20)
    torch.testing.assert_close(got_B, T([0.0, 0.0, -0.5, -1.0, -1.0]))
    with pytest.raises(ValueError, match="buffer_tokens"):
        adv.soft_overlong_penalty(T([1]), 10, 11)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5))
def test_group_estimators_sum_to_zero_and_keep_order(rewards):
    reward_PG = torch.tensor(rewards)
    valid_PG = torch.ones_like(reward_PG, dtype=torch.bool)
    for got_PG in (adv.group_advantage(reward_PG, valid_PG, scale_by_std=True), adv.rloo_advantage(reward_PG, valid_PG)):
        assert got_PG.sum(1).abs().max() < 1e-3
        higher_PGG = (reward_PG[:, :, None] > reward_PG[:, None, :] + 1e-3) & adv.has_signal(reward_PG, valid_PG)[:, None, None]
        assert (got_PG[:, :, None] > got_PG[:, None, :])[higher_PGG].all()
