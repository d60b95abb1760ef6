"""Offline DPO through TRL: its loss is ours, it raises the margin, and it stops and goes on without losing anything."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
import torch

from rlaif.algos.losses import dpo_loss
from rlaif.errors import EnvironmentFailure, Interrupted, UsageError
from rlaif.policy.logps import action_logps
from rlaif.policy.model import load_policy
from rlaif.runs import Console
from rlaif.train import dpo as module
from rlaif.train.dpo import build_trainer, newest, quiet, train_dpo
from rlaif.train.prefer_config import DpoConfig
from rlaif.train.preference_data import read_pairs
from tests.train.preference_helpers import silent

pytest.importorskip("trl")


def test_dpo_by_hand():
    # margins (1 - 0.5) - (-1 - -0.5) = 1 and (0 - 1) - (0 - 0) = -1, beta 0.5
    logps = [torch.tensor(values) for values in ([1.0, 0.0], [-1.0, 0.0], [0.5, 1.0], [-0.5, 0.0])]
    loss, metrics = dpo_loss(*logps, beta=0.5)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(0.5))])
    assert metrics["reward_margin"].tolist() == [0.5, -0.5] and metrics["preference_accuracy"].tolist() == [1, 0]


def pair_file(path: Path, count: int = 8) -> Path:
    rows = []
    for number in range(count):
        answers = [f"```python\ndef add(n):\n    return n {sign} {number}\n```" for sign in "+-"]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in answers)
        row = {"prompt": [{"role": "user", "content": f"Add {number}"}], "chosen": chosen, "rejected": rejected, "problem_id": f"q{number}"}
        rows.append(row | {"label_probability": 1.0 if number else 0.6})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(model: Path, pairs: Path, problems: Path, output: Path, **changes) -> DpoConfig:
    values = {"model": str(model), "preferences": pairs, "output_dir": output, "eval_problems": str(problems), "eval_limit": 1, "eval_samples": 1}
    values |= {"dtype": "float32", "threads": 1, "max_new_tokens": 4, "max_length": 128, "pairs_per_step": 4, "micro_batch_pairs": 2}
    return DpoConfig(**{**values, "epochs": 4, "learning_rate": 1e-3, **changes})


def trained(tiny_llama: Path, problem_file: Path, tmp_path: Path, name: str = "run", console: Console | None = None, **changes):
    pairs = pair_file(tmp_path / "pairs.jsonl")
    return train_dpo(settings(tiny_llama, pairs, problem_file, tmp_path / name, **changes), console=console or silent())


def test_trls_loss_on_a_batch_is_ours(tiny_llama, tmp_path):
    """A moved policy against its reference: TRL's loss from its own tensors, ours from our own log-probabilities of the same tokens."""
    policy = load_policy(tiny_llama, dtype="float32", device="cpu")
    pairs = read_pairs(pair_file(tmp_path / "pairs.jsonl", 4))
    config = DpoConfig(dtype="float32", pairs_per_step=4, beta=0.3)
    with quiet():
        trainer = build_trainer(policy, pairs, config, tmp_path / "out")
        rows = list(trainer.train_dataset)

        def logps() -> list[torch.Tensor]:
            found = []
            for side in ("chosen_ids", "rejected_ids"):
                sums = torch.zeros(len(rows))
                for micro in action_logps(policy, [row["prompt_ids"] for row in rows], [[row[side]] for row in rows]):
                    sums.index_add_(0, micro.row_M, micro.logp_M.detach())
                found.append(sums)
            return found

        reference = logps()
        for row, chosen, rejected in zip(rows, *reference, strict=True):
            assert row["ref_chosen_logps"] == pytest.approx(float(chosen), abs=1e-3)
            assert row["ref_rejected_logps"] == pytest.approx(float(rejected), abs=1e-3)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        theirs = trainer._compute_loss(policy.model, trainer.data_collator(rows), return_outputs=False)
    ours, metrics = dpo_loss(*logps(), *reference, beta=0.3)
    assert metrics["reward_margin"].abs().max() > 0.05, "else both are log 2 whatever they compute"
    assert float(theirs.detach()) == pytest.approx(float(ours.mean()), abs=1e-3)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_it_raises_the_margin(tiny_llama, problem_file, tmp_path, lora_rank):
    done = trained(tiny_llama, problem_file, tmp_path, lora_rank=lora_rank, learning_rate=1e-2 if lora_rank else 1e-3)
    rows = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4) and rows[0]["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["reward_margin"] > 0.2 and rows[-1]["preference_accuracy"] == 1.0
    assert (done.pairs, done.left_out) == (7, 1), "the unsure label is left out, and counted"
    assert set(done.lift.evaluations) == {"before", "after"} and done.lift.comparison is not None
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(done.path)  # the run's folder is the model's
    assert not any("lora" in name for name in model.state_dict())
    assert json.loads((done.path / "status.json").read_text())["state"] == "done"


def test_stopped_and_resumed_it_ends_where_the_whole_run_ends(tiny_llama, problem_file, tmp_path):
    whole = trained(tiny_llama, problem_file, tmp_path, "whole")

    class Interrupting(Console):
        def message(self, text: str, style: str = "") -> None:
            if text.startswith("Step 3/"):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="step 4") as caught:
        trained(tiny_llama, problem_file, tmp_path, console=Interrupting(file=silent().rich.file, live=False))
    assert caught.value.exit_code == 130
    folder = tmp_path / "run"
    torn = folder / "checkpoints" / "checkpoint-7"  # a kill in the middle of a save leaves a folder without its last file
    torn.mkdir()
    assert newest(folder / "checkpoints").name == "checkpoint-4"
    again = trained(tiny_llama, problem_file, tmp_path, resume=True)
    assert (again.path / "model" / "model.safetensors").read_bytes() == (whole.path / "model" / "model.safetensors").read_bytes()
    steps = [json.loads(line)["episode"] for line in (again.path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_killed_after_training_it_only_evaluates(tiny_llama, problem_file, tmp_path, monkeypatch):
    done = trained(tiny_llama, problem_file, tmp_path)
    (done.path / "after.json").unlink()

    def refuse(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "_fit", refuse)
    assert trained(tiny_llama, problem_file, tmp_path, resume=True).lift.comparison is not None


def test_without_trl_the_error_names_the_install_line(tiny_llama, problem_file, tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "trl" else object())
    with pytest.raises(EnvironmentFailure, match=r"pip install 'rlaif\[trl\]'") as caught:
        trained(tiny_llama, problem_file, tmp_path)
    assert caught.value.exit_code == 3 and not (tmp_path / "run").exists()


def test_bad_input_is_said_before_anything_is_trained(tiny_llama, problem_file, tmp_path):
    with pytest.raises(UsageError, match="sure enough"):
        pairs = tmp_path / "unsure.jsonl"
        pairs.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b", "label_probability": 0.55}) + "\n")
        train_dpo(settings(tiny_llama, pairs, problem_file, tmp_path / "run"), console=silent())
    with pytest.raises(UsageError, match="shorter than 16 tokens"):
        trained(tiny_llama, problem_file, tmp_path, "short", max_length=16)
    with pytest.raises(UsageError, match="multiple of --micro-batch-pairs"):
        trained(tiny_llama, problem_file, tmp_path, "cut", pairs_per_step=5)
    from tests.tiny_models import make_tiny

    with pytest.raises(UsageError, match="no chat template"):
        trained(make_tiny("gpt2", tmp_path / "gpt2"), problem_file, tmp_path, "plain")
