"""Action log-probabilities: equal to the plain forward pass, whatever the layout, padding or micro-batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_models import KINDS

from rlaif.policy import linear, packing
from rlaif.policy import logps as logps_module
from rlaif.policy.logps import FLAT_MODELS, action_logps
from tests.policy.conftest import naive_logps, prompts_of, random_completions

SHAPE = ((5, 1, 9), (7,), (3, 3))


def collect(policy, prompts, completions, what="logp_M", **options):
    """{(row, time): value} over all micro-batches."""
    found = {}
    with torch.no_grad():
        for batch in action_logps(policy, prompts, completions, **options):
            for row, time, value in zip(batch.row_M.tolist(), batch.time_M.tolist(), getattr(batch, what).tolist(), strict=True):
                assert (row, time) not in found
                found[row, time] = value
    return found


def expected(policy, prompts, completions, temperature=1.0):
    found, row = {}, 0
    for prompt, group in zip(prompts, completions, strict=True):
        for completion in group:
            found |= {(row, time): value for time, value in enumerate(naive_logps(policy, prompt, completion, temperature).tolist())}
            row += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_plain_forward_pass(load, kind):
    policy = load(kind)
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    found = collect(policy, prompts, completions, temperature=0.7)
    assert found.keys() == (want := expected(policy, prompts, completions, 0.7)).keys()
    assert found == pytest.approx(want, abs=2e-5)


@pytest.mark.parametrize("kind", sorted(FLAT_MODELS & set(KINDS)))
def test_flat_and_padded_layouts_agree_in_values_and_gradients(load, kind, monkeypatch):
    policy = load(kind)
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)

    def run():
        policy.model.zero_grad()
        flat = {}
        for batch in action_logps(policy, prompts, completions):
            (batch.logp_M * (1 + batch.time_M)).sum().backward()
            flat |= dict(zip(zip(batch.row_M.tolist(), batch.time_M.tolist(), strict=True), batch.logp_M.tolist(), strict=True))
        return flat, {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}

    flat, flat_gradients = run()
    monkeypatch.setattr(logps_module, "FLAT_MODELS", frozenset())
    padded, padded_gradients = run()
    assert flat == pytest.approx(padded, abs=1e-5)
    assert flat_gradients.keys() == padded_gradients.keys()
    for name, gradient in flat_gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[name], atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", sorted(FLAT_MODELS & set(KINDS)))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_without_the_prompts_gradient(load, kind, checkpointing):
    """Values as ever; the gradient is that of answers fed after transformers' own cache of a prompt that was computed without a graph."""
    policy = load(kind, gradient_checkpointing=checkpointing)
    prompts, completions = [ids for ids in prompts_of(policy) if len(ids) > 1], random_completions(policy, SHAPE[:2])
    batches = list(action_logps(policy, prompts, completions, prompt_gradient=False))
    found = {}
    for batch in batches:
        found |= dict(zip(zip(batch.row_M.tolist(), batch.time_M.tolist(), strict=True), batch.logp_M.tolist(), strict=True))
    assert found == pytest.approx(expected(policy, prompts, completions), abs=2e-5)
    sum((batch.logp_M * (1 + batch.time_M)).sum() for batch in batches).backward()
    gradients = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}

    policy.model.zero_grad()
    policy.model.eval()
    for prompt, group in zip(prompts, completions, strict=True):
        for ids in group:
            with torch.no_grad():
                cache = policy.model(torch.tensor([prompt[:-1]]), use_cache=True).past_key_values
            logits_TV = policy.model(torch.tensor([[prompt[-1], *ids[:-1]]]), past_key_values=cache).logits[0, :, : policy.vocabulary]
            logp_T = logits_TV.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
            (logp_T * (1 + torch.arange(len(ids)))).sum().backward()
    wanted = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", ["gpt2", "codegen", "roberta", "llama"])
@pytest.mark.parametrize(("side", "extra"), [("left", 0), ("left", 7), ("right", 7)])
def test_padding_side_and_amount_do_not_matter(load, kind, side, extra, monkeypatch):
    policy = load(kind)
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    monkeypatch.setattr(logps_module, "FLAT_MODELS", frozenset())
    plain = collect(policy, prompts, completions)
    monkeypatch.setattr(logps_module, "pad", lambda *args, **options: packing.pad(*args, **options, side=side, extra=extra))
    assert collect(policy, prompts, completions) == pytest.approx(plain, abs=1e-5)


def test_position_ids_come_from_the_mask_and_gpt2_needs_them(load, monkeypatch):
    """Left-padded GPT-2 with positions that count the padding gives other numbers: the trap this guards against is real."""
    policy = load("gpt2")
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    right = expected(policy, prompts, completions)
    monkeypatch.setattr(logps_module, "FLAT_MODELS", frozenset())

    def counted(*args, **options):
        batch = packing.pad(*args, **options, side="left")
        return dataclasses.replace(batch, position_BL=torch.arange(batch.mask_BL.shape[1]).expand_as(batch.position_BL))

    monkeypatch.setattr(logps_module, "pad", counted)
    wrong = collect(policy, prompts, completions)
    assert max(abs(wrong[key] - right[key]) for key in right) > 1e-2


@pytest.mark.parametrize("kind", ["llama", "codegen", "t5"])
def test_micro_batch_split_does_not_matter(load, kind):
    policy = load(kind)
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    whole = collect(policy, prompts, completions, micro_batch_tokens=10_000)
    for tokens in (64, 20, 1):
        assert collect(policy, prompts, completions, micro_batch_tokens=tokens) == pytest.approx(whole, abs=1e-5)


def test_gradient_does_not_depend_on_the_split(load):
    policy = load("llama")
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    gradients = []
    for tokens in (10_000, 16):
        policy.model.zero_grad()
        for batch in action_logps(policy, prompts, completions, micro_batch_tokens=tokens):
            (batch.logp_M.sum() / 28).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable_parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_same_micro_batches_give_the_same_bits(load, kind):
    """Ratio exactly 1 in the first minibatch: with and without gradients, twice."""
    policy = load(kind)
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    with torch.no_grad():
        old = [batch.logp_M for batch in action_logps(policy, prompts, completions, micro_batch_tokens=30)]
    new = [batch.logp_M for batch in action_logps(policy, prompts, completions, micro_batch_tokens=30)]
    assert len(old) > 1
    assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert all(b.requires_grad for b in new)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "codegen"])
def test_pad_equal_to_eos_and_eos_in_the_action(load, kind):
    """Completions that end with, begin with or contain the pad = eos id count in full."""
    policy = load(kind)
    policy.tokenizer.pad_token = policy.tokenizer.eos_token
    eos = policy.tokenizer.eos_token_id
    prompts = prompts_of(policy)
    completions = [[[5, 6, eos], [eos]], [[eos, eos, 7]], [[8, 9, 10, 11]]]
    found = collect(policy, prompts, completions)
    assert len(found) == 3 + 1 + 3 + 4
    assert found == pytest.approx(expected(policy, prompts, completions), abs=2e-5)


def test_entropy_and_chunks(load, monkeypatch):
    """The head in chunks of a few rows equals the head in one, in entropy too."""
    from rlaif.policy import head

    policy = load("qwen2")
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    whole = collect(policy, prompts, completions, "entropy_M", with_entropy=True, temperature=1.3)
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * policy.vocabulary * 3)
    assert collect(policy, prompts, completions, "entropy_M", with_entropy=True, temperature=1.3) == pytest.approx(whole, abs=1e-5)
    logits = policy.model(torch.tensor([prompts[1] + completions[1][0]])).logits[0, len(prompts[1]) - 1 : -1] / 1.3
    want = torch.distributions.Categorical(logits=logits).entropy()
    assert [whole[3, time] for time in range(7)] == pytest.approx(want.tolist(), abs=1e-4)


def test_keep_leaves_rows_out_without_renumbering(load):
    policy = load("llama")
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    whole = collect(policy, prompts, completions)
    kept = collect(policy, prompts, completions, keep=[[True, False, True], [False], [False, True]])
    assert {row for row, _ in kept} == {0, 2, 5}
    assert kept == pytest.approx({key: value for key, value in whole.items() if key[0] in {0, 2, 5}}, abs=1e-5)


@pytest.mark.parametrize("kind", ["llama", "t5", "gpt2"])
def test_value_head(load, kind):
    """Zero at first; its gradient reaches the model below it."""
    policy = load(kind, value_head=True)
    prompts, completions = prompts_of(policy), random_completions(policy, SHAPE)
    assert set(collect(policy, prompts, completions, "value_M", with_values=True).values()) == {0.0}
    torch.nn.init.ones_(policy.value_head.weight)
    (batch,) = action_logps(policy, prompts, completions, with_values=True)
    batch.value_M.pow(2).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.model.parameters())


def test_values_without_a_head_are_refused(load):
    with pytest.raises(ValueError, match="value_head"):
        next(action_logps(load("llama"), [[5]], [[[6]]], with_values=True))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "codegen", "t5"])
def test_gradient_checkpointing_changes_nothing(load, kind, monkeypatch):
    monkeypatch.setattr(logps_module, "can_fuse_update", lambda policy: False)  # which take no checkpoints
    gradients = []
    for checkpointing in (False, True):
        policy = load(kind, gradient_checkpointing=checkpointing)
        for batch in action_logps(policy, prompts_of(policy), random_completions(policy, SHAPE)):
            batch.logp_M.sum().backward()
        assert not any(module.training for module in policy.model.modules())
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable_parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("shape", [SHAPE, ((1, 1), (1,), (1,)), ((4,), (4,), (4,))], ids=["ragged", "nothing fed", "even"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("prompt_gradient", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_the_updates_own_layers_are_the_modules(load, kind, shape, dtype, prompt_gradient, packed, monkeypatch):
    """Values and every weight's gradient, against autograd through transformers' layers on the same flat micro-batch."""
    monkeypatch.setattr(linear, "PACK_ROWS", 1 if packed else 2**30)
    monkeypatch.setattr(linear, "PACK_ROWS_TRANSPOSED", 1 if packed else 2**30)
    policy = load(kind, {"scale": 0.05}, dtype=dtype)
    prompts, completions = prompts_of(policy), random_completions(policy, shape)

    def run():
        policy.model.zero_grad()
        values = []
        for batch in action_logps(policy, prompts, completions, prompt_gradient=prompt_gradient):
            (batch.logp_M * (1 + batch.row_M + batch.time_M)).sum().backward()
            values.append(batch.logp_M.detach())
        return torch.cat(values), {name: p.grad.clone() for name, p in policy.model.named_parameters()}

    assert logps_module.can_fuse_update(policy)
    fused, fused_gradients = run()
    monkeypatch.setattr(logps_module, "can_fuse_update", lambda policy: False)
    plain, plain_gradients = run()
    torch.testing.assert_close(fused, plain, atol=1e-5 if dtype == "float32" else 0.02, rtol=0)
    for name, gradient in plain_gradients.items():
        error = (fused_gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < (1e-4 if dtype == "float32" else 0.03), name


def test_who_takes_the_modules_layers(load):
    assert logps_module.can_fuse_update(load("llama", trainable=False))
    for policy in (load("llama", lora_rank=2), load("llama", gradient_checkpointing=True), load("gpt2")):
        assert not logps_module.can_fuse_update(policy)


def test_bf16_compute_stays_near_float32(load):
    plain, compute = load("llama", {"scale": 0.05}), load("llama", {"scale": 0.05}, dtype="bfloat16")
    prompts, completions = prompts_of(plain), random_completions(plain, SHAPE)
    found = collect(compute, prompts, completions)
    assert found == pytest.approx(collect(plain, prompts, completions), abs=0.03)
    assert all(p.dtype == torch.float32 for p in compute.model.parameters())


@pytest.mark.parametrize("keep", [0, 2**20])
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_head_values_and_gradients_equal_autograd(with_entropy, keep, packed, monkeypatch):
    """The hand-written backward of log p and of the entropy, in chunks of 4 rows, against plain autograd; temperature 0.7."""
    from rlaif.policy import head as head_module

    monkeypatch.setattr(head_module, "KEEP_BYTES", keep)
    monkeypatch.setattr(head_module, "PACK_ROWS", 1 if packed else 2**30)
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 4 * 50 * 4)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 8, generator=generator, requires_grad=True)
    head = torch.nn.Linear(8, 50, bias=False)
    target, weights = torch.randint(0, 50, (11,), generator=generator), torch.randn(2, 11, generator=generator)

    def loss_of(logp, entropy):
        return logp @ weights[0] + (entropy @ weights[1] if with_entropy else 0)

    found = head_module.token_logps(hidden, target, head, 50, 0.7, with_entropy)
    loss_of(*found).backward()
    gradients = [hidden.grad.clone(), head.weight.grad.clone()]
    hidden.grad = head.weight.grad = None
    distribution = torch.distributions.Categorical(logits=head(hidden) / 0.7)
    logp, entropy = distribution.log_prob(target), distribution.entropy()
    loss_of(logp, entropy).backward()
    torch.testing.assert_close(found[0], logp, atol=1e-5, rtol=1e-5)
    assert (found[1] is None) is not with_entropy
    if with_entropy:
        torch.testing.assert_close(found[1], entropy, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients, [hidden.grad, head.weight.grad], atol=1e-5, rtol=1e-5)


def test_asking_for_more_does_not_change_the_bits(load):
    """Old log-probabilities come without entropy and values, new ones may come with both: still a ratio of exactly 1."""
    policy = load("llama", value_head=True)
    arguments = policy, prompts_of(policy), random_completions(policy, SHAPE)
    with torch.no_grad():
        plain = [batch.logp_M for batch in action_logps(*arguments)]
    more = [batch.logp_M for batch in action_logps(*arguments, with_entropy=True, with_values=True)]
    assert all(torch.equal(a, b) for a, b in zip(plain, more, strict=True))


def test_head_may_run_backward_twice():
    """The probabilities kept from the forward pass are used up by the first backward pass; the second must not see what is left of them."""
    from rlaif.policy.head import token_logps

    head, hidden = torch.nn.Linear(8, 50, bias=False), torch.randn(5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = token_logps(hidden, torch.arange(5), head, 50, 1.0, False)[0].sum()
    first, second = (torch.autograd.grad(loss, hidden, retain_graph=True)[0] for _ in range(2))
    assert first.abs().max() > 0.01
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
