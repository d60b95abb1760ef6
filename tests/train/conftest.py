"""A tiny model on disk, a few problems, and a batch whose rewards are made up: a training step without sandbox or judge."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
import torch

from rlaif.config import TrainConfig
from rlaif.policy.model import Policy, load_policy
from rlaif.policy.sampler import SamplingParams, sample
from rlaif.policy.trace import Trace
from rlaif.train.rollout import Batch
from rlaif.types import Feedback
from tests.tiny_models import make_tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def problem_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six problems of the learner's layout, half of them held out."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [
        {
            "id": f"p{i}",
            "prompt": f"Add {i} to a number",
            "split": "train" if i % 2 else "test",
            "tests": [{"input": f"add_{i}({n})", "expected": str(n + i)} for n in range(5)],
        }
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_config(**changes) -> TrainConfig:
    settings = {
        "dtype": "float32",
        "max_new_tokens": 8,
        "batch_size": 2,
        "group_size": 3,
        "feedback": "execution",
        "temperature": 1.0,
        "seed": 1,
        "threads": 1,
        "group_baseline": False,  # a tiny random model's answers are all as bad: with the group's mean taken off nothing would move
    }
    return TrainConfig(**{**settings, **changes})


def tiny_policy(folder: Path, **changes) -> Policy:
    torch.manual_seed(0)
    return load_policy(folder, dtype="float32", device="cpu", **changes)


def made_up_batch(
    policy: Policy, reward=None, *, P: int = 2, G: int = 3, tokens: int = 8, seed: int = 0, valid=None, trace: Trace | None = None
) -> Batch:
    """Sampled completions; `reward(token_ids) -> float`, random by default."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [[5 + p, 9, 12, 7 + p] * (p + 1) for p in range(P)]
    samples = sample(policy, prompts, G, SamplingParams(max_new_tokens=tokens), generator, trace=trace)
    if reward is None:
        reward_PG = torch.rand(P, G, generator=generator)
    else:
        reward_PG = torch.tensor([[reward(one.token_ids) for one in group] for group in samples])
    valid_PG = torch.ones(P, G, dtype=torch.bool) if valid is None else torch.tensor(valid)
    return Batch(prompts, samples, reward_PG, valid_PG, [], 0.0, 0.0, trace)


class Differing:
    """A reward engine: some number in [0, 1] that depends on the program's text."""

    judge = None

    def score(self, problems, codes) -> list[Feedback]:
        return [Feedback(zlib.crc32(code.encode()) % 1000 / 999, "scored") for code in codes]


class SmoothAdamW(torch.optim.AdamW):
    """For runs that are compared weight by weight: with AdamW's own epsilon, 1e-8, a weight whose gradient is next to nothing is moved by the
    rounding of that gradient, by up to a whole step."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options, eps=1e-4)
