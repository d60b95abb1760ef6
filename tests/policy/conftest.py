"""Tiny models on disk, one per family, built once for the whole test run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tiny_models, shared with other rooms' tests

from tiny_models import make_tiny

from rlaif.policy.model import Policy, load_policy

TEXTS = ("def add(a, b):", "def count_vowels(text):\n    total", "x")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny("gpt2", pad=..., chat=...) -> folder"""
    made: dict[tuple, Path] = {}

    def get(kind: str, **options: object) -> Path:
        key = (kind, *sorted(options.items()))
        if key not in made:
            made[key] = make_tiny(kind, tmp_path_factory.mktemp(kind), **options)
        return made[key]

    return get


@pytest.fixture
def load(tiny: Callable[..., Path]) -> Callable[..., Policy]:
    """load("gpt2", lora_rank=4) -> a fresh float32 policy"""

    def get(kind: str, folder_options: dict | None = None, **options: object) -> Policy:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RoBERTa's warning has a test of its own
            return load_policy(tiny(kind, **(folder_options or {})), **({"dtype": "float32", "device": "cpu"} | options))

    return get


def prompts_of(policy: Policy) -> list[list[int]]:
    return [policy.tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]


def random_completions(policy: Policy, shape: tuple[tuple[int, ...], ...], seed: int = 0) -> list[list[list[int]]]:
    """[P][G] completions of the given lengths, ids drawn from the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randint(4, policy.config.vocab_size, (length,), generator=generator).tolist() for length in row] for row in shape]


@torch.no_grad()
def naive_logps(policy: Policy, prompt: list[int], completion: list[int], temperature: float = 1.0) -> torch.Tensor:
    """One sequence at a time through the plain transformers forward pass: the definition that everything is compared with. [T]"""
    if policy.is_encoder_decoder:
        start = [policy.config.decoder_start_token_id, *completion[:-1]]
        logits = policy.model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start])).logits[0]
    else:
        logits = policy.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
