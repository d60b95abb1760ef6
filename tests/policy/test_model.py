"""Loading, adapters, reference and saving."""

from __future__ import annotations

import pytest
import torch
from tiny_models import KINDS
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from rlaif.errors import ModelNotFound, UsageError
from rlaif.policy.logps import action_logps
from rlaif.policy.model import load_policy, resolve_device
from rlaif.policy.sampler import SamplingParams, sample
from tests.policy.conftest import prompts_of, random_completions

SHAPE = ((4, 2), (3, 3), (5,))


def logps(policy):
    with torch.no_grad():
        return torch.cat([batch.logp_M for batch in action_logps(policy, prompts_of(policy), random_completions(policy, SHAPE))])


def train_a_little(policy):
    optimiser = torch.optim.SGD(policy.trainable_parameters(), lr=0.5)
    for _ in range(2):
        for batch in action_logps(policy, prompts_of(policy), random_completions(policy, SHAPE)):
            (-batch.logp_M.mean()).backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_trains_saves_and_loads_with_plain_transformers(load, kind, lora_rank, tmp_path):
    policy = load(kind, lora_rank=lora_rank, lora_alpha=8.0)
    before = logps(policy)
    train_a_little(policy)
    after = logps(policy)
    assert after.mean() > before.mean() + 0.01, "the weights must have moved, and towards the data"
    policy.save(tmp_path)
    torch.testing.assert_close(logps(policy), after, msg="saving must not touch the policy")

    plain = (AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM).from_pretrained(tmp_path)
    assert type(plain).__module__.startswith("transformers.")
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == 2
    again = load_policy(tmp_path, dtype="float32", device="cpu")
    torch.testing.assert_close(logps(again), after, atol=2e-4, rtol=1e-4)
    assert not [name for name in plain.state_dict() if "lora" in name]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_lora_reference_is_the_base_with_the_adapter_off(load, kind):
    policy = load(kind, lora_rank=4)
    before = logps(policy)
    train_a_little(policy)
    with policy.reference() as reference:
        torch.testing.assert_close(logps(reference), before, atol=0, rtol=0)
    assert not torch.allclose(logps(policy), before)
    assert policy._reference is None, "no copy is made"


def test_full_reference_is_made_on_first_need_from_the_source(load):
    policy = load("llama")
    before = logps(policy)
    train_a_little(policy)
    assert policy._reference is None
    with policy.reference() as reference:
        torch.testing.assert_close(logps(reference), before)
        assert not any(parameter.requires_grad for parameter in reference.model.parameters())


def test_stop_ids_are_those_of_tokenizer_and_generation_config(load):
    policy = load("llama")
    assert policy.stop_token_ids == {2}
    policy.model.generation_config.eos_token_id = [2, 7]
    from rlaif.policy.model import stop_token_ids

    assert stop_token_ids(policy.tokenizer, policy.base) == {2, 7}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_no_pad_token_and_no_chat_template(load, kind):
    policy = load(kind, {"pad": False, "chat": False})
    assert policy.tokenizer.pad_token_id is None and policy.tokenizer.chat_template is None
    assert len(sample(policy, prompts_of(policy), 2, SamplingParams(3), torch.Generator().manual_seed(0))) == 3
    assert logps(policy).isfinite().all()


def test_roberta_is_a_decoder_with_a_warning(tiny):
    with pytest.warns(UserWarning, match="not made to generate"):
        policy = load_policy(tiny("roberta"), dtype="float32")
    ids = torch.tensor([[5, 6, 7, 8]])
    changed = torch.tensor([[5, 6, 7, 9]])
    with torch.no_grad():
        torch.testing.assert_close(policy.model(ids).logits[:, :3], policy.model(changed).logits[:, :3], msg="a decoder does not see the future")


def test_frozen_policy_is_held_in_the_compute_type(load):
    policy = load("llama", trainable=False, dtype="bfloat16")
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.bfloat16}
    assert not policy.trainable_parameters()


def test_saved_type_is_the_original_one(load, tmp_path):
    first = load("llama")
    first.stored_dtype = torch.bfloat16
    first.save(tmp_path)
    again = load_policy(tmp_path, dtype="float32")
    assert again.stored_dtype == torch.bfloat16
    assert {parameter.dtype for parameter in again.model.parameters()} == {torch.float32}


def test_unreadable_folders_say_so(tmp_path):
    with pytest.raises(ModelNotFound, match="holds no model"):
        load_policy(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="Cannot read the model"):
        load_policy(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_missing_device_is_named():
    with pytest.raises(UsageError, match="No cuda device"):
        resolve_device("cuda")
