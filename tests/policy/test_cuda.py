"""The same engine on a GPU, where there is one: skipped elsewhere."""

from __future__ import annotations

import pytest
import torch

from rlaif.algos.recipes import recipe_for
from rlaif.policy.logps import action_logps
from rlaif.policy.sampler import SamplingParams, sample
from rlaif.train.update import build_optimizer, update
from tests.policy.conftest import prompts_of, random_completions
from tests.tiny_models import KINDS
from tests.train.conftest import made_up_batch, tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def logps_of(policy, prompts, completions, **options) -> torch.Tensor:
    with torch.no_grad():
        found = {
            (b.row_M[i].item(), b.time_M[i].item()): b.logp_M[i].item()
            for b in action_logps(policy, prompts, completions, **options)
            for i in range(len(b.row_M))
        }
    return torch.tensor([found[key] for key in sorted(found)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gpu_computes_what_the_cpu_computes(load, kind):
    cpu, gpu = load(kind), load(kind, device="cuda")
    prompts, completions = prompts_of(cpu), random_completions(cpu, ((5, 1, 9), (7,), (3, 3)))
    torch.testing.assert_close(logps_of(gpu, prompts, completions), logps_of(cpu, prompts, completions), atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_sampler_and_trainer_agree_on_the_gpu(load, kind):
    policy = load(kind, device="cuda")
    prompts = prompts_of(policy)
    found = sample(policy, prompts, 4, SamplingParams(14, stop_token_ids=frozenset(range(2, 60))), torch.Generator().manual_seed(0), rows_in_flight=8)
    sampled = torch.tensor([logp for group in found for one in group for logp in one.logp_T])
    trained = logps_of(policy, prompts, [[list(one.token_ids) for one in group] for group in found])
    torch.testing.assert_close(trained, sampled, atol=2e-4, rtol=0)


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
def test_one_update_on_the_gpu(load, algo):
    policy = load("llama", device="cuda", value_head=algo == "ppo")
    config = tiny_config(algo=algo, learning_rate=1e-3)
    before = [parameter.detach().clone() for parameter in policy.trainable_parameters()]
    metrics = update(policy, build_optimizer(policy, config), made_up_batch(policy), recipe_for(algo), config, torch.Generator())
    assert metrics["steps"] == 1 and metrics["ratio"] == 1.0 and metrics["approx_kl"] == 0.0
    assert any(not torch.equal(parameter, old) for parameter, old in zip(policy.trainable_parameters(), before, strict=True))
