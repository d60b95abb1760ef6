"""The sampler: the right tokens, the right reasons, the same draws for the same seed, and log-probabilities the trainer agrees with."""

from __future__ import annotations

import pytest
import torch
from tiny_models import KINDS

from rlaif.errors import UsageError
from rlaif.policy import sampler as sampler_module
from rlaif.policy.decoders import HFDecoder, make_decoder
from rlaif.policy.fused import FUSED_MODELS, FusedDecoder
from rlaif.policy.logps import action_logps
from rlaif.policy.sampler import SamplingParams, choose, sample
from tests.policy.conftest import prompts_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ids(samples):
    return [[one.token_ids for one in group] for group in samples]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_generate(load, kind):
    policy = load(kind)
    prompts = prompts_of(policy)
    found = sample(policy, prompts, 1, SamplingParams(12, greedy=True))
    for prompt, (one,) in zip(prompts, found, strict=True):
        if kind == "roberta":  # generate counts its positions from 0, where the model itself starts after the padding index: ask the model
            want = list(prompt)
            for _ in one.token_ids:
                want.append(int(policy.model(torch.tensor([want])).logits[0, -1].argmax()))
            assert list(one.token_ids) == want[len(prompt) :]
            continue
        want = policy.model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=0, eos_token_id=2)[0].tolist()
        want = want[1:] if policy.is_encoder_decoder else want[len(prompt) :]
        assert list(one.token_ids) == want
        assert one.finish_reason == ("eos" if want[-1] == 2 else "length")


def sampled_and_trainers_logps(policy, temperature):
    """The sampler's log-probabilities of a batch and the trainer's: rows finish early, groups thin out and rows change slots on the way."""
    prompts = prompts_of(policy)
    stops = frozenset(range(2, 60))  # many ids, so that rows end at different steps
    found = sample(policy, prompts, 4, SamplingParams(14, temperature, stop_token_ids=stops), seeded(), rows_in_flight=8)
    lengths = {len(one.token_ids) for group in found for one in group}
    assert len(lengths) > 2
    rows = [one for group in found for one in group]
    sampled, trained = [], []
    with torch.no_grad():
        for batch in action_logps(policy, prompts, [[list(one.token_ids) for one in group] for group in found], temperature=temperature):
            sampled += [rows[row].logp_T[time] for row, time in zip(batch.row_M.tolist(), batch.time_M.tolist(), strict=True)]
            trained.append(batch.logp_M)
    return torch.tensor(sampled), torch.cat(trained)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampler_and_trainer_agree_on_logps(load, kind, temperature):
    sampled, trained = sampled_and_trainers_logps(load(kind, value_head=False), temperature)
    torch.testing.assert_close(trained, sampled, atol=3e-5, rtol=0)


@pytest.mark.parametrize("kind", sorted(FUSED_MODELS & set(KINDS)))
def test_in_bfloat16_sampler_and_trainer_stay_near(load, kind):
    sampled, trained = sampled_and_trainers_logps(load(kind, dtype="bfloat16"), 1.0)
    assert (trained - sampled).abs().mean() < 0.025


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_same_seed_same_samples_whatever_the_batch(load, kind):
    policy = load(kind)
    prompts = prompts_of(policy)
    params = SamplingParams(10, stop_token_ids=frozenset(range(2, 30)))
    first = sample(policy, prompts, 3, params, seeded(7))
    assert sample(policy, prompts, 3, params, seeded(7)) == first
    assert ids(sample(policy, prompts, 3, params, seeded(7), rows_in_flight=3)) == ids(first)
    assert ids(sample(policy, prompts, 3, params, seeded(8))) != ids(first)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "codegen", "t5"])
def test_finish_reasons(load, kind):
    policy = load(kind)
    (group,) = sample(
        policy, prompts_of(policy)[:1], 16, SamplingParams(6, stop_token_ids=frozenset(range(0, policy.config.vocab_size, 7))), seeded()
    )
    assert {one.finish_reason for one in group} == {"eos", "length"}
    for one in group:
        ends = [token % 7 == 0 for token in one.token_ids]
        assert not any(ends[:-1]), "nothing follows an end"
        assert ends[-1] == (one.finish_reason == "eos"), "the end itself belongs to the action"
        assert len(one.token_ids) == len(one.logp_T)
        assert one.finish_reason == "eos" or len(one.token_ids) == 6


def test_stop_text_ends_a_row_and_keeps_the_token(load):
    policy = load("llama")
    prompts = prompts_of(policy)
    free = sample(policy, prompts, 4, SamplingParams(20, stop_token_ids=frozenset()), seeded())
    decode = policy.tokenizer.decode
    # a stop text made of two tokens that one of the rows happened to sample
    p, g, t = next(
        (p, g, t)
        for p, group in enumerate(free)
        for g, one in enumerate(group)
        for t in range(3, 19)
        if (text := decode(one.token_ids[t : t + 2])).isascii() and len(text) > 1 and text not in decode(one.token_ids[: t + 1])
    )
    text = decode(free[p][g].token_ids[t : t + 2])
    one = sample(policy, prompts, 4, SamplingParams(20, stop_token_ids=frozenset(), stop_texts=("never seen", text)), seeded())[p][g]
    assert one.finish_reason == "stop"
    assert one.token_ids == free[p][g].token_ids[: t + 2], "the token that completed the text stays, and nothing after it"
    assert one.logp_T == pytest.approx(free[p][g].logp_T[: t + 2], abs=1e-5)


def test_inverse_cdf_draws_the_right_token():
    """Golden: p = (0.5, 0.2, 0.3), u picks the token whose CDF first exceeds it; the temperature reshapes p before."""
    p = torch.tensor([0.5, 0.2, 0.3])
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.69, 0.71, 1 - 1e-9], dtype=torch.float64)
    token, logp = choose(p.log().expand(6, 3), SamplingParams(), uniform)
    assert token.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(logp, p.log()[token])
    sharp = p.pow(2) / p.pow(2).sum()  # temperature 0.5: 0.658, 0.105, 0.237
    token, logp = choose(p.log().expand(2, 3), SamplingParams(temperature=0.5), torch.tensor([0.64, 0.75], dtype=torch.float64))
    assert token.tolist() == [0, 1]
    torch.testing.assert_close(logp, sharp.log()[token])


def test_inverse_cdf_over_blocks_matches_the_distribution():
    """A vocabulary of several blocks: evenly spaced draws hit each token as often as its probability says, and never one of none."""
    logits = torch.randn(1000, generator=seeded()) * 2
    logits[100:400] = -torch.inf
    draws = 20_000
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    token, _ = choose(logits.expand(draws, 1000), SamplingParams(), uniform)
    share = torch.bincount(token, minlength=1000) / draws
    assert (share - logits.softmax(-1)).abs().max() < 1.5 / draws
    assert share[100:400].sum() == 0


@pytest.mark.parametrize("kind", sorted(FUSED_MODELS & set(KINDS)))
def test_fused_decoder_equals_the_transformers_module(load, kind):
    """Logits of prefill and steps, with rows dropped on the way and a new group admitted between groups of another length."""
    policy = load(kind, trainable=False)
    assert isinstance(make_decoder(policy, 8, 8, 2, None, 8), FusedDecoder)
    prompts = prompts_of(policy)
    with torch.no_grad():
        fused, plain = FusedDecoder(policy, 8, 40, 12, 2), HFDecoder(policy, 8, 60)

        def same(call):
            torch.testing.assert_close(call(fused), call(plain), atol=2e-4, rtol=1e-4)

        same(lambda decoder: decoder.admit(prompts[:2], 2))
        same(lambda decoder: decoder.step([5, 6, 7, 8]))
        for decoder in (fused, plain):
            decoder.move([3], [0], 2)  # row 3 goes to slot 0; the group of prompt 0 keeps one row
        same(lambda decoder: decoder.step([9, 10]))
        same(lambda decoder: decoder.admit(prompts[2:], 2))
        same(lambda decoder: decoder.step([11, 12, 13, 14]))
        for decoder in (fused, plain):
            decoder.move([3], [1], 3)  # prompt 0 has no row left: its slot is given up
        assert len(fused.prompt_lengths) == 2
        same(lambda decoder: decoder.step([15, 16, 17]))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_bf16_sampling_follows_the_master_weights(load, kind, lora_rank):
    """The sampler's own copy is refreshed: after a change of the weights it samples from the new ones."""
    policy = load(kind, dtype="bfloat16", lora_rank=lora_rank)
    prompts = prompts_of(policy)
    params = SamplingParams(8, greedy=True)
    before = sample(policy, prompts, 1, params)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded()) * 0.5)
    after = sample(policy, prompts, 1, params)
    assert ids(after) != ids(before)
    fresh = load(kind, dtype="bfloat16", lora_rank=lora_rank)
    fresh.model.load_state_dict(policy.model.state_dict())
    assert ids(sample(fresh, prompts, 1, params)) == ids(after)


def test_no_gradients_and_no_dropout(load):
    policy = load("gpt2")
    sample(policy, prompts_of(policy), 2, SamplingParams(3), seeded())
    assert not any(module.training for module in policy.model.modules())
    assert all(parameter.grad is None for parameter in policy.model.parameters())


def test_refusals(load):
    policy = load("gpt2")
    with pytest.raises(UsageError, match="no tokens"):
        sample(policy, [[]], 1, SamplingParams(3))
    with pytest.raises(UsageError, match="context is 256"):
        sample(policy, [[5] * 250], 1, SamplingParams(10))
    with pytest.raises(UsageError, match="temperature"):
        SamplingParams(temperature=0)


def test_logits_of_the_last_position_only(load, monkeypatch):
    """Prefill asks the head for one position a prompt, not for all."""
    policy = load("gpt2")
    seen = []
    policy.model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape[:2]))
    sample(policy, [[5, 6, 7, 8], [5, 6, 7, 9]], 2, SamplingParams(3, stop_token_ids=frozenset()), seeded())
    assert [tuple(shape) for shape in seen] == [(2, 1), (4, 1), (4, 1)]


def test_progress_counts_every_row_once(load):
    policy, calls = load("llama"), []
    sample(policy, prompts_of(policy), 2, SamplingParams(4), seeded(), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert sampler_module.context_length(policy) == 256
