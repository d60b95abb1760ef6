"""The update: every promise about its gradient, each of which a broken line would break."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rlaif.algos.recipes import recipe_for
from rlaif.config import TrainConfig
from rlaif.policy import logps
from rlaif.policy.logps import hidden_states
from rlaif.policy.model import Policy
from rlaif.policy.trace import Trace
from rlaif.train import rollout
from rlaif.train.distributed import World
from rlaif.train.rollout import Batch, trace_serves
from rlaif.train.update import build_optimizer, set_learning_rate, update
from tests.train.conftest import made_up_batch, tiny_config, tiny_policy

ALGOS = ["ppo", "grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo", "raft", "online_dpo"]


def run_update(policy: Policy, batch: Batch, config: TrainConfig) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """One update with plain SGD in place of AdamW (whose step hides a gradient's size) -> metrics, and how far each weight moved."""
    before = {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.SGD([*policy.trainable_parameters(), *(policy.value_head.parameters() if policy.value_head else [])], lr=1.0)
    recipe = recipe_for(config.algo, clip=config.clip, clip_high=config.clip_high)
    metrics = update(policy, optimizer, batch, recipe, config, torch.Generator().manual_seed(0))
    return metrics, {name: parameter.detach() - before[name] for name, parameter in policy.model.named_parameters() if parameter.requires_grad}


def assert_same_move(first: dict, second: dict, *, scale: float = 1.0, atol: float = 1e-6) -> None:
    largest = max(float(move.abs().max()) for move in first.values())
    assert largest > 1e-6, "nothing moved: the comparison would say nothing"
    for name, move in first.items():
        torch.testing.assert_close(scale * move, second[name], atol=atol * max(largest, 1e-3) * 100, rtol=1e-4)


def config_for(algo: str, **changes) -> TrainConfig:
    return tiny_config(algo=algo, max_grad_norm=1e9, **changes)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_micro_batch_split_changes_nothing(tiny_llama, algo):
    moves = []
    for tokens in (4096, 64):
        policy = tiny_policy(tiny_llama, value_head=algo == "ppo")
        moves.append(run_update(policy, made_up_batch(policy, P=4, G=4, tokens=20), config_for(algo, micro_batch_tokens=tokens, kl_coef=0.05))[1])
    assert_same_move(*moves, atol=1e-5)


@pytest.mark.parametrize(("tokens", "epochs", "passes"), [(4096, 1, 1), (64, 1, 2), (4096, 2, 3)])
@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
def test_a_batch_of_one_micro_batch_and_one_step_goes_through_the_layers_once(tiny_llama, monkeypatch, tokens, epochs, passes, kl_coef):
    """The pass for the critic's values is then the step's own; with more micro-batches or steps it is not."""
    policy = tiny_policy(tiny_llama, value_head=True)
    batch, seen = made_up_batch(policy, P=4, G=4, tokens=20), []
    monkeypatch.setattr(logps, "hidden_states", lambda policy, groups, *a, **k: seen.extend(groups) or hidden_states(policy, groups, *a, **k))
    metrics, _ = run_update(policy, batch, config_for("ppo", micro_batch_tokens=tokens, update_epochs=epochs, kl_coef=kl_coef))
    rows = sum(len(group.members) for group in seen)
    assert metrics["steps"] == epochs and rows == 16 * (passes + (kl_coef > 0))  # the reference's own pass


@pytest.mark.parametrize("algo", ALGOS)
def test_the_first_step_is_on_policy_exactly(tiny_llama, algo):
    """Ratio 1 and KL 0 to the last bit: old and new log-probabilities come from the same computation."""
    policy = tiny_policy(tiny_llama, value_head=algo == "ppo")
    metrics, _ = run_update(policy, made_up_batch(policy), config_for(algo))
    if algo not in ("raft", "online_dpo"):
        assert metrics["ratio"] == 1.0 and metrics["approx_kl"] == 0.0 and metrics["clip_fraction"] == 0.0
    assert metrics["sampler_mismatch"] < 1e-5


def test_later_epochs_leave_the_old_policy(tiny_llama):
    policy = tiny_policy(tiny_llama)
    metrics, _ = run_update(policy, made_up_batch(policy), config_for("grpo", update_epochs=3))
    assert metrics["steps"] == 3 and metrics["approx_kl"] > 1e-6


def test_a_sample_nobody_could_score_changes_nothing(tiny_llama):
    """Same batch with the bad sample's reward at two extremes: the update must not see it."""
    moves = []
    for bad in (0.0, 1.0):
        policy = tiny_policy(tiny_llama)
        batch = made_up_batch(policy, valid=[[True, True, False], [True, True, True]])
        batch.reward_PG[0, 2] = bad
        moves.append(run_update(policy, batch, config_for("grpo"))[1])
    assert_same_move(*moves)


@pytest.mark.parametrize("algo", ["ppo", "grpo", "rloo", "dapo"])
def test_an_unscored_sample_leaves_the_denominator(tiny_llama, algo):
    """The update on a group with one invalid sample equals the update on the group without that sample."""
    with_bad = tiny_policy(tiny_llama, value_head=algo == "ppo")
    batch = made_up_batch(with_bad, valid=[[True, True, False], [True, True, False]])
    smaller = dataclasses.replace(
        batch, samples=[group[:2] for group in batch.samples], reward_PG=batch.reward_PG[:, :2].clone(), valid_PG=batch.valid_PG[:, :2].clone()
    )
    without = tiny_policy(tiny_llama, value_head=algo == "ppo")
    assert_same_move(run_update(with_bad, batch, config_for(algo))[1], run_update(without, smaller, config_for(algo, group_size=2))[1], atol=1e-5)


def test_a_batch_of_infrastructure_failures_makes_no_step(tiny_llama):
    policy = tiny_policy(tiny_llama)
    metrics, moves = run_update(policy, made_up_batch(policy, valid=[[False] * 3] * 2), config_for("grpo"))
    assert metrics["steps"] == 0 and all(move.abs().max() == 0 for move in moves.values())


def test_groups_of_equal_rewards_are_skipped_and_reported(tiny_llama):
    policy = tiny_policy(tiny_llama)
    batch = made_up_batch(policy)
    batch.reward_PG[0] = 0.3
    metrics, _ = run_update(policy, batch, config_for("grpo"))
    assert metrics["skipped_group_share"] == 0.5 and metrics["steps"] == 1
    batch.reward_PG[:] = 0.3
    metrics, moves = run_update(policy, batch, config_for("grpo"))
    assert metrics["steps"] == 0 and all(move.abs().max() == 0 for move in moves.values())


def test_skipping_does_not_change_the_denominator(tiny_llama):
    """Skipping is an economy: with an entropy bonus of (nearly) nothing no row is skipped, and the step is the same."""
    moves = []
    for entropy_coef in (0.0, 1e-12):
        policy = tiny_policy(tiny_llama)
        batch = made_up_batch(policy)
        batch.reward_PG[0] = 0.3
        moves.append(run_update(policy, batch, config_for("grpo", entropy_coef=entropy_coef))[1])
    assert_same_move(*moves)


def test_masked_truncation_leaves_the_update(tiny_llama):
    moves = []
    for reward in (0.0, 1.0):
        policy = tiny_policy(tiny_llama)
        batch = made_up_batch(policy)
        batch.samples[0][0] = dataclasses.replace(batch.samples[0][0], finish_reason="length")
        for group in batch.samples:
            for place in range(1, 3):
                group[place] = dataclasses.replace(group[place], finish_reason="eos")
        batch.reward_PG[0, 0] = reward
        moves.append(run_update(policy, batch, config_for("grpo", truncated="mask"))[1])
    assert_same_move(*moves)


def test_a_high_reward_raises_the_probability_of_its_tokens(tiny_llama):
    """The sign of the whole chain, from reward to weights, for every algorithm."""
    from rlaif.policy.logps import action_logps

    def summed_logp(policy, batch):
        with torch.no_grad():
            micros = list(action_logps(policy, batch.prompt_ids, batch.completion_ids))
        logp_B = torch.zeros(batch.reward_PG.numel())
        for micro in micros:
            logp_B.index_add_(0, micro.row_M, micro.logp_M)
        return logp_B.view_as(batch.reward_PG)

    for algo in ALGOS:
        policy = tiny_policy(tiny_llama, value_head=algo == "ppo")
        batch = made_up_batch(policy)
        batch.reward_PG[:] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        before = summed_logp(policy, batch)
        config = config_for(algo, learning_rate=1e-4)
        optimizer = build_optimizer(policy, config)
        update(policy, optimizer, batch, recipe_for(algo), config, torch.Generator())
        gain = summed_logp(policy, batch) - before
        assert gain[0, 0] > gain[0, 1:].max() and gain[1, 2] > gain[1, :2].max(), algo


def test_kl_holds_the_policy_to_its_reference(tiny_llama):
    """After an update with a large KL weight the policy is nearer to the reference than without."""
    distances = []
    for kl_coef in (0.0, 5.0):
        policy = tiny_policy(tiny_llama)
        batch = made_up_batch(policy)
        config = tiny_config(algo="grpo", kl_coef=kl_coef, learning_rate=3e-3)
        optimizer = build_optimizer(policy, config)
        for _ in range(8):
            metrics = update(policy, optimizer, batch, recipe_for("grpo"), config, torch.Generator())
        start = dict(tiny_policy(tiny_llama).model.named_parameters())
        distances.append(sum(float((parameter - start[name]).detach().square().sum()) for name, parameter in policy.model.named_parameters()))
    assert "ref_kl" in metrics and distances[1] < 0.7 * distances[0]


def test_no_reference_is_loaded_when_its_weight_is_zero(tiny_llama):
    policy = tiny_policy(tiny_llama)
    run_update(policy, made_up_batch(policy), config_for("grpo", kl_coef=0.0))
    assert policy._reference is None


def test_lora_trains_the_adapter_alone_and_its_base_is_the_reference(tiny_llama):
    policy = tiny_policy(tiny_llama, lora_rank=4)
    frozen = {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters() if not parameter.requires_grad}
    batch = made_up_batch(policy)
    config = tiny_config(algo="grpo", kl_coef=0.1, learning_rate=1e-2, lora_rank=4)
    optimizer = build_optimizer(policy, config)
    first = update(policy, optimizer, batch, recipe_for("grpo"), config, torch.Generator())
    second = update(policy, optimizer, batch, recipe_for("grpo"), config, torch.Generator())
    assert first["ref_kl"] < 1e-9 < second["ref_kl"]
    assert all(torch.equal(parameter, frozen[name]) for name, parameter in policy.model.named_parameters() if name in frozen)


def test_the_critic_learns_the_return(tiny_llama):
    policy = tiny_policy(tiny_llama, value_head=True)
    batch = made_up_batch(policy, lambda ids: 0.7)
    config = tiny_config(algo="ppo", value_learning_rate=0.05, learning_rate=1e-9, value_coef=1.0, value_clip=10.0)
    optimizer = build_optimizer(policy, config)
    losses = [update(policy, optimizer, batch, recipe_for("ppo"), config, torch.Generator())["value_loss"] for _ in range(30)]
    assert losses[0] == pytest.approx(0.5 * 0.7**2, rel=0.05), "a value head that starts at zero is wrong by the whole return"
    assert losses[-1] < 0.05 * losses[0]


def test_an_infinite_gradient_makes_no_step(tiny_llama):
    policy = tiny_policy(tiny_llama)
    batch = made_up_batch(policy)
    batch.reward_PG[0, 0] = float("inf")
    _, moves = run_update(policy, batch, config_for("dr_grpo"))
    assert all(torch.isfinite(move).all() for move in moves.values())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0, 1.0]),
        ({"warmup_episodes": 2}, [0.5, 1.0, 1.0, 1.0, 1.0]),
        ({"learning_rate_schedule": "linear"}, [1.0, 0.8, 0.6, 0.4, 0.2]),
        ({"learning_rate_schedule": "linear", "warmup_episodes": 1}, [1.0, 1.0, 0.75, 0.5, 0.25]),
        ({"learning_rate_schedule": "linear", "warmup_episodes": 10}, [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_the_learning_rates_follow_the_schedule(tiny_llama, settings, expected):
    config = tiny_config(algo="ppo", episodes=5, learning_rate=2e-5, value_learning_rate=1e-4, **settings)
    optimizer = build_optimizer(tiny_policy(tiny_llama, value_head=True), config)
    rates = []
    for episode in range(1, 6):
        set_learning_rate(optimizer, config, episode)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [[pytest.approx(2e-5 * scale), pytest.approx(1e-4 * scale)] for scale in expected]


@pytest.mark.parametrize("algo", [algo for algo in ALGOS if algo != "online_dpo"])
def test_an_update_from_the_trace_is_the_update(tiny_llama, algo):
    moves = []
    for traced in (False, True):
        policy = tiny_policy(tiny_llama, value_head=algo == "ppo")
        batch = made_up_batch(policy, P=4, G=4, tokens=20, trace=Trace() if traced else None)
        assert (batch.trace is not None and batch.trace.ready) == traced
        metrics, move = run_update(policy, batch, config_for(algo, micro_batch_tokens=64))
        assert metrics["sampler_mismatch"] < 1e-5 and batch.trace is None
        moves.append(move)
    assert_same_move(*moves, atol=1e-5)


def test_a_trace_is_made_where_it_serves(tiny_llama, monkeypatch):
    """One step, no reference, one process, whole weights: else what is compared would not come from one computation, or the trace be no whole one."""
    policy = tiny_policy(tiny_llama)
    assert trace_serves(policy, config_for("grpo")) and trace_serves(policy, config_for("ppo"))
    for changes in ({"update_epochs": 2}, {"minibatches": 2}, {"kl_coef": 0.05}):
        assert not trace_serves(policy, config_for("ppo", **changes))
    assert not trace_serves(policy, config_for("online_dpo"))
    for options in ({"lora_rank": 4}, {"gradient_checkpointing": True}):
        assert not trace_serves(tiny_policy(tiny_llama, **options), config_for("grpo"))
    monkeypatch.setattr(rollout, "world", lambda: World(rank=0, size=2))
    assert not trace_serves(policy, config_for("grpo"))


def test_an_episode_hands_its_trace_to_the_update(tiny_llama, problem_file, tmp_path, monkeypatch):
    """The whole way: sampled with a trace, updated by it, once an episode, and nothing of it stays."""
    from rlaif.train import loop

    seen = []

    def watched(policy, optimizer, batch, *rest):
        seen.append(batch.trace is not None and batch.trace.ready)
        metrics = update(policy, optimizer, batch, *rest)
        seen.append(batch.trace)
        return metrics

    monkeypatch.setattr(loop, "update", watched)
    loop.train(tiny_config(model=str(tiny_llama), problems=str(problem_file), episodes=2, sft_steps=0, output_dir=tmp_path / "run"))
    assert seen == [True, None] * 2
