"""What sampling leaves for the update: the same values and gradients as a forward pass of the update's own, without its products."""

from __future__ import annotations

import pytest
import torch
from tiny_models import KINDS

from rlaif.policy import fused_update, trace
from rlaif.policy.fused import FUSED_MODELS
from rlaif.policy.logps import action_logps, action_values
from rlaif.policy.sampler import SamplingParams, sample
from rlaif.policy.trace import Trace
from tests.policy.conftest import prompts_of

STOPS = frozenset(range(2, 60))  # many ids, so that rows end at different steps


def sampled(policy):
    """Rows finish early, change slots, and make room for a third group: prompts, completions, their trace."""
    prompts, found = prompts_of(policy), Trace()
    params = SamplingParams(14, stop_token_ids=STOPS)
    samples = sample(policy, prompts, 4, params, torch.Generator().manual_seed(0), rows_in_flight=8, trace=found)
    completions = [[list(one.token_ids) for one in group] for group in samples]
    assert len({len(ids) for group in completions for ids in group}) > 2
    return prompts, completions, found


def pass_over(policy, prompts, completions, **options):
    """Log-probabilities by their place, and every weight's gradient."""
    policy.model.zero_grad()
    logps = {}
    for batch in action_logps(policy, prompts, completions, with_entropy=True, **options):
        logps |= dict(zip(zip(batch.row_M.tolist(), batch.time_M.tolist(), strict=True), batch.logp_M.tolist(), strict=True))
        (batch.logp_M * (1 + batch.time_M) + batch.entropy_M).sum().backward()
    return logps, {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", sorted(FUSED_MODELS & set(KINDS)))
@pytest.mark.parametrize("micro_batch_tokens", [4096, 40])
def test_a_traced_pass_has_the_same_values_and_gradients(load, kind, micro_batch_tokens):
    policy = load(kind)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():  # tiny models come with biases of 0 and norms of 1, which would hide a lost one
            if name.endswith("bias") or "norm" in name:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3
    prompts, completions, found = sampled(policy)
    options = {"micro_batch_tokens": micro_batch_tokens, "keep": [[True, True, False, True], [False, True, True, True], [True, False, True, False]]}
    logps, gradients = pass_over(policy, prompts, completions, **options)
    traced, traced_gradients = pass_over(policy, prompts, completions, trace=found, **options)
    assert traced.keys() == logps.keys() and traced == pytest.approx(logps, abs=1e-5)
    assert traced_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(traced_gradients[name], gradient, atol=2e-4, rtol=1e-3, msg=name)


def test_a_traced_pass_multiplies_by_no_weight(load, monkeypatch):
    policy = load("llama", value_head=True)
    prompts, completions, found = sampled(policy)
    calls = []
    product = fused_update.product
    monkeypatch.setattr(fused_update, "product", lambda *a: calls.append(1) or product(*a))

    def values(**options):
        calls.clear()
        parts = list(action_values(policy, prompts, completions, micro_batch_tokens=4096, **options))
        return torch.cat([value_M for value_M, _, _ in parts]), len(calls)

    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    plain, products = values()
    traced, none = values(trace=found)
    assert products == 5 * policy.config.num_hidden_layers and none == 0
    torch.testing.assert_close(traced, plain, atol=1e-4, rtol=1e-4)


def test_samples_are_the_same_with_and_without_a_trace(load):
    policy = load("llama")
    params = SamplingParams(14, stop_token_ids=STOPS)
    _, completions, _ = sampled(policy)
    plain = sample(policy, prompts_of(policy), 4, params, torch.Generator().manual_seed(0), rows_in_flight=8)
    assert [[list(one.token_ids) for one in group] for group in plain] == completions


def test_a_trace_of_other_weights_is_other_than_a_pass(load):
    """What makes its use after a step a mistake, and the tests above ones that can fail."""
    policy = load("llama")
    prompts, completions, found = sampled(policy)
    with torch.no_grad():
        for parameter in policy.model.model.layers.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    now, traced = pass_over(policy, prompts, completions)[0], pass_over(policy, prompts, completions, trace=found)[0]
    assert max(abs(now[place] - traced[place]) for place in now) > 1e-3


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_where_nothing_is_kept_the_pass_is_the_updates_own(load, kind, monkeypatch):
    """Too large, or a model whose sampler has no such products."""
    monkeypatch.setattr(trace, "TRACE_BYTES", 10_000)
    policy = load(kind)
    prompts, completions, found = sampled(policy)
    assert not found.ready
    assert pass_over(policy, prompts, completions, trace=found)[0] == pass_over(policy, prompts, completions)[0]
