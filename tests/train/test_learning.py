"""It learns: a tiny model is paid for one token and writes more of it, and does not when the reward is negated or shuffled."""

from __future__ import annotations

import pytest
import torch

from rlaif.algos.recipes import recipe_for
from rlaif.train.update import build_optimizer, update
from tests.train.conftest import made_up_batch, tiny_config, tiny_policy

TARGET = 40
"""Any token below this id is paid for: about an eighth of what the untrained model writes."""


def share_of_target(token_ids) -> float:
    return sum(token < TARGET for token in token_ids) / len(token_ids)


def train(folder, algo: str, change=lambda reward_PG, generator: reward_PG, episodes: int = 25) -> tuple[float, float]:
    """(mean reward of the first three episodes, of the last three)."""
    policy = tiny_policy(folder, value_head=algo == "ppo")
    config = tiny_config(algo=algo, learning_rate=5e-3, value_learning_rate=5e-3)
    optimizer, recipe = build_optimizer(policy, config), recipe_for(algo)
    generator = torch.Generator().manual_seed(7)
    rewards = []
    for episode in range(episodes):
        batch = made_up_batch(policy, share_of_target, P=2, G=8, tokens=8, seed=episode)
        rewards.append(float(batch.reward_PG.mean()))
        batch.reward_PG = change(batch.reward_PG, generator)
        update(policy, optimizer, batch, recipe, config, generator)
    return sum(rewards[:3]) / 3, sum(rewards[-3:]) / 3


@pytest.mark.parametrize("algo", ["ppo", "grpo", "rloo", "reinforce++", "dapo", "dr_grpo", "raft", "online_dpo"])
def test_it_learns(tiny_llama, algo):
    first, last = train(tiny_llama, algo)
    assert last > first + 0.25


def test_the_sign_of_the_advantage_matters(tiny_llama):
    first, last = train(tiny_llama, "grpo", lambda reward_PG, _: -reward_PG)
    assert last < first


def test_a_shuffled_reward_teaches_nothing(tiny_llama):
    def shuffle(reward_PG, generator):
        return reward_PG.flatten()[torch.randperm(reward_PG.numel(), generator=generator)].view_as(reward_PG)

    first, last = train(tiny_llama, "grpo", shuffle)
    assert last < first + 0.15
