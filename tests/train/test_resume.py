"""A run killed at any moment and resumed ends where the uninterrupted one ends, to the last bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from rlaif.config import TrainConfig
from rlaif.errors import Interrupted, UsageError
from rlaif.runs import Console
from rlaif.train.loop import train
from rlaif.train.setup import Hooks
from tests.train.conftest import tiny_config

KILLS = int(os.environ.get("RLAIF_KILLS", "5"))
"""Moments of death in the test; the full proof takes 20."""


def settings(model: Path, problems: Path, output: Path, **changes) -> dict:
    return {
        "model": str(model),
        "problems": str(problems),
        "output_dir": output,
        "episodes": 4,
        "save_every": 2,
        "sft_steps": 1,
        "algo": "ppo",
        "group_baseline": False,  # a tiny random model's answers are all as bad: with the group's mean taken off nothing would move
        "max_new_tokens": 6,
        "eval_limit": 2,
        **changes,
    }


def run_quietly(kwargs: dict) -> None:
    with open(os.devnull, "w") as nowhere:
        train(tiny_config(**kwargs), console=Console(file=nowhere, live=False))


def outcome(folder: Path) -> tuple:
    """Everything a run says but its times."""
    timed = ("time", "_s", "tokens_per_s", "peak_memory_bytes")
    metrics = [
        {key: value for key, value in json.loads(line).items() if not key.endswith(timed)}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    rollouts = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    written = [(row["episode"], row["problem_id"], row["code"], row["reward"], row["advantage"], row["token_ids"]) for row in rollouts]
    return (folder / "model" / "model.safetensors").read_bytes(), metrics, written


def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(tiny_llama, problem_file, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlaif.train.loop", "tests.train.test_resume"])

    def start(kwargs: dict):
        process = context.Process(target=run_quietly, args=(kwargs,))
        process.start()
        return process

    warm_up = context.Process(target=time.sleep, args=(0,))  # the server imports torch once, which would count as the first run's time
    warm_up.start()
    warm_up.join()
    whole = tmp_path / "whole"
    begun = time.monotonic()
    process = start(settings(tiny_llama, problem_file, whole))
    process.join()
    assert process.exitcode == 0
    duration = time.monotonic() - begun

    killed = tmp_path / "killed"
    rng = random.Random(0)
    deaths = 0
    while True:
        again = (killed / "config.json").exists()
        process = start(settings(tiny_llama, problem_file, killed, resume=again))
        if deaths < KILLS:
            process.join(duration * rng.uniform(0.1, 0.9))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                deaths += 1
                process.join()
                continue
            if deaths == 0:  # the machine was busier when the whole run was timed: earlier, and from the beginning
                duration /= 2
                shutil.rmtree(killed)
                continue
        process.join()
        assert process.exitcode == 0
        break
    assert deaths > 0
    assert outcome(killed) == outcome(whole)


def test_ctrl_c_keeps_every_finished_episode(tiny_llama, problem_file, tmp_path):
    """Interrupted in the third episode with no checkpoint due: the first two are saved, and the end is that of a whole run."""
    folder = tmp_path / "run"
    seen = []

    def interrupt(path: Path) -> None:
        seen.append(path)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    nowhere = open(os.devnull, "w")  # noqa: SIM115
    config = tiny_config(**settings(tiny_llama, problem_file, folder, save_every=100))
    with pytest.raises(Interrupted, match="episode 2") as caught:
        train(config, hooks=Hooks(after_episode=interrupt), console=Console(file=nowhere, live=False))
    assert caught.value.exit_code == 130 and "--resume" in str(caught.value)
    run_quietly(settings(tiny_llama, problem_file, folder, save_every=100, resume=True))
    run_quietly(settings(tiny_llama, problem_file, tmp_path / "whole", save_every=100))
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_resume_goes_on_with_the_runs_own_settings_and_refuses_others(tiny_llama, problem_file, tmp_path):
    folder = tmp_path / "run"
    run_quietly(settings(tiny_llama, problem_file, folder, episodes=1))
    with pytest.raises(UsageError, match="another algo"):
        run_quietly(settings(tiny_llama, problem_file, folder, resume=True, algo="grpo"))
    with open(os.devnull, "w") as nowhere:
        train(TrainConfig(output_dir=folder, resume=True, episodes=2), console=Console(file=nowhere, live=False))
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_an_existing_folder_is_refused_and_kept(tiny_llama, problem_file, tmp_path):
    folder = tmp_path / "run"
    run_quietly(settings(tiny_llama, problem_file, folder, episodes=1))
    before = outcome(folder)
    with pytest.raises(UsageError, match="--resume") as caught:
        run_quietly(settings(tiny_llama, problem_file, folder))
    assert "--overwrite" in str(caught.value)
    assert outcome(folder) == before
    run_quietly(settings(tiny_llama, problem_file, folder, episodes=1, overwrite=True, seed=5))
    assert outcome(folder)[0] != before[0]


def test_the_saved_model_loads_without_this_package(tiny_llama, problem_file, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "run"
    run_quietly(settings(tiny_llama, problem_file, folder, episodes=1, lora_rank=2))
    for place in (folder, folder / "model"):
        model = AutoModelForCausalLM.from_pretrained(place)
        assert model.config.model_type == "llama" and AutoTokenizer.from_pretrained(place).eos_token == "<|im_end|>"
        assert not any("lora" in name for name in model.state_dict())
