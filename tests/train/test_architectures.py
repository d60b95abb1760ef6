"""Every family that the project names goes through the real training loop: PPO and GRPO, saved, loaded by plain transformers, resumed, evaluated.

Tiny random weights on disk (tests/tiny_models.py). Their programs are noise, so that each reward would be the same and GRPO would have nothing
to learn from: the reward engine alone is replaced, by one whose rewards differ. Evaluation runs in the real sandbox.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from rlaif.runs import Console
from rlaif.train import loop
from tests.tiny_models import KINDS, make_tiny
from tests.train.conftest import Differing, tiny_config


@pytest.fixture(scope="module")
def two_and_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two problems to train on and one to evaluate on."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [
        {"id": f"p{i}", "prompt": f"Add {i} to a number", "split": "train", "tests": [{"input": f"add({i})", "expected": f"{i}"}]} for i in range(2)
    ]
    rows.append({"id": "held", "prompt": "Add 1", "split": "test", "tests": [{"input": "add(1)", "expected": "2"}]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
@pytest.mark.parametrize("kind", KINDS)
def test_trains_saves_loads_resumes_and_evaluates(kind, algo, two_and_one, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "build_engine", lambda *_: Differing())
    folder = make_tiny(kind, tmp_path / "model")
    settings = {
        "model": str(folder),
        "problems": str(two_and_one),
        "output_dir": tmp_path / "run",
        "algo": algo,
        "group_size": 3,
        "max_new_tokens": 5,
        "eval_samples": 1,
        "learning_rate": 1e-3,
        "save_every": 1,
    }

    def run(**changes) -> object:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RoBERTa's warning has a test of its own
            return loop.train(tiny_config(**settings | changes), console=Console(file=nowhere, live=False))

    run(episodes=1)
    result = run(episodes=2, resume=True)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in metrics] == [1, 2]
    for row in metrics:
        assert row["steps"] == 1 and row["grad_norm"] > 0
        assert row["ratio"] == 1.0 and row["approx_kl"] == 0.0
        assert row["sampler_mismatch"] < 1e-4
    assert result.evaluations.keys() >= {"before", "after"} and result.evaluations["after"].success.count == 1

    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    saved, info = auto.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    before = auto.from_pretrained(folder).state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in saved.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    ids = tokenizer("def add(a, b):", return_tensors="pt").input_ids
    assert len(saved.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0)[0]) > 1
