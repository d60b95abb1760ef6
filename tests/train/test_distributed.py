"""Two processes, started by `accelerate launch` on the CPU, end where one process ends; rank 0 alone writes and speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlaif.config import TrainConfig
from rlaif.errors import UsageError
from rlaif.runs import Console
from rlaif.train import distributed, loop
from rlaif.train.distributed import World, join
from rlaif.train.setup import Hooks
from tests.train.conftest import Differing, SmoothAdamW, tiny_config

ROOT = Path(__file__).parents[2]


def settings(model: Path, problems: Path, output: Path, **changes) -> dict:
    """Three problems on two processes: one has more to do than the other."""
    common = {"model": str(model), "problems": str(problems), "output_dir": str(output), "device": "cpu", "batch_size": 3, "eval_limit": 1}
    return common | {"episodes": 2, "learning_rate": 1e-3, "eval_samples": 1, "save_every": 1} | changes


def metrics_of(folder: Path) -> list[dict]:
    timed = ("time", "_s", "tokens_per_s", "peak_memory_bytes")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith(timed) and isinstance(value, int | float)} for row in rows]


def written(folder: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    return [(row["episode"], row["problem_id"], row["reward"], row["token_ids"]) for row in rows]


GRPO = {"algo": "grpo", "kl_coef": 0.05}
TAUGHT = GRPO | {"sft_steps": 2, "sft_batch_size": 3, "sft_learning_rate": 1e-3}
LAUNCHED = {
    # `--cpu --num_processes 2` would start one process without a word; `--multi_gpu` is what starts several, on the CPU where there is no GPU
    "--multi_gpu": {
        "ppo": {"algo": "ppo", "update_epochs": 2, "minibatches": 2, "kl_coef": 0.05},
        "grpo": GRPO,
        "taught": TAUGHT,
    },
    "--use_fsdp": {
        "ppo": {"algo": "ppo", "update_epochs": 2, "minibatches": 2, "kl_coef": 0.05},
        "grpo": GRPO,
        "lora": GRPO | {"lora_rank": 2, "gradient_checkpointing": True},
        "taught": TAUGHT,
        "few": GRPO | {"batch_size": 1},  # one process has nothing to do but to give its share
    },
}
"""What `accelerate launch` is asked for, and the runs it is given; `grpo` is run once more, in two parts."""


@pytest.mark.parametrize("launch", LAUNCHED)
def test_two_processes_take_the_steps_of_one(launch: str, tiny_llama, problem_file, tmp_path, monkeypatch):
    variants = LAUNCHED[launch]
    names = [*variants, "resumed"]
    files = []
    with_references = tmp_path / "problems.jsonl"
    rows = [json.loads(line) for line in problem_file.read_text().splitlines()]
    rows = [row | {"reference": f"def add_{row['id'][1:]}(x):\n    return x + {row['id'][1:]}\n"} for row in rows]
    with_references.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem_file = with_references
    for name in names:
        files.append(tmp_path / f"{name}.json")
        changes = variants.get(name, GRPO | {"episodes": 1})
        files[-1].write_text(json.dumps(settings(tiny_llama, problem_file, tmp_path / f"two-{name}", **changes)))
    files.append(tmp_path / "again.json")
    files[-1].write_text(json.dumps(settings(tiny_llama, problem_file, tmp_path / "two-resumed", **GRPO, resume=True)))
    command = [sys.executable, "-m", "accelerate.commands.launch", launch, "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += [str(ROOT / "tests" / "train" / "launched.py"), *map(str, files)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    sharded = launch == "--use_fsdp"
    assert sorted(path.name for path in tmp_path.glob("rank-*")) == [f"rank-{rank}-of-2{'-sharded' * sharded}" for rank in range(2)]
    assert done.stdout.count("Episode 1/2") == len(variants), "one voice for each run of two episodes"

    monkeypatch.setattr(loop, "build_engine", lambda *_: Differing())
    monkeypatch.setattr(torch.optim, "AdamW", SmoothAdamW)
    with open(os.devnull, "w") as nowhere:
        for name, changes in variants.items():
            alone = settings(tiny_llama, problem_file, tmp_path / f"one-{name}", **changes)
            loop.train(tiny_config(**alone), console=Console(file=nowhere, live=False))
    before = load_file(tiny_llama / "model.safetensors")
    for name in names:
        two, one = tmp_path / f"two-{name}", tmp_path / f"one-{'grpo' if name == 'resumed' else name}"
        assert written(two) == written(one)
        for found, wanted in zip(metrics_of(two), metrics_of(one), strict=True):
            assert found == pytest.approx(wanted, abs=1e-4, nan_ok=True), name
        found, wanted = (load_file(folder / "model" / "model.safetensors") for folder in (two, one))
        assert found.keys() == wanted.keys()
        for tensor in wanted:
            torch.testing.assert_close(found[tensor], wanted[tensor], atol=1e-6, rtol=0)
        assert max(float((found[tensor] - before[tensor]).abs().max()) for tensor in wanted) > 1e-4, f"{name}: nothing moved"


def test_shards_in_rank_order_are_the_whole():
    for size in (1, 2, 3, 7):
        for count in (0, 1, 5, 8):
            items = list(range(count))
            parts = [World(rank, size).shard(items) for rank in range(size)]
            assert [item for part in parts for item in part] == items
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_sent_anywhere(monkeypatch):
    monkeypatch.setattr(distributed, "dist", None)
    tensor, world = torch.ones(2), World()
    assert world.sum(tensor) is tensor and world.gather([1]) == [1] and world.from_main("a") == "a"
    world.sum_gradients([torch.nn.Parameter(torch.ones(1))])
    world.same([tensor])


def test_what_cannot_be_launched_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one folder"):
        join(TrainConfig(), Hooks(), Console())
