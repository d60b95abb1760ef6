"""The learner's five files: the demo's promise, and that an edit to them changes the next run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_models import make_tiny

ROOT = Path(__file__).resolve().parent.parent
FILES = ["train.py", "evaluate.py", "reward_model.py", "rlaif_trainer.py", "simple_dataset.py"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache whose smollm2-135m is a tiny random model: nothing is fetched."""
    folder = tmp_path_factory.mktemp("cache")
    place = make_tiny("llama", folder / "models" / "smollm2-135m")
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForCausalLM.from_pretrained(place)
    tokenizer.add_tokens(["Yes", "No"])  # a judge reads its belief from these two
    model.resize_token_embeddings(len(tokenizer))
    model.config.max_position_embeddings = 4096  # room for real prompts: rotary positions have no weights
    tokenizer.save_pretrained(place)
    model.save_pretrained(place)
    return folder


def learner_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "learner"
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def python(folder: Path, cache: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "RLAIF_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


TRAIN = ["train.py", "--episodes", "1", "--batch_size", "2", "--group_size", "2", "--max_new_tokens", "6", "--eval_limit", "1", "--dtype", "float32"]


def test_the_five_files_stay_small():
    assert sum(len((ROOT / name).read_text().splitlines()) for name in FILES) < 500


def test_the_demo_scores_good_code_high_and_bad_code_low_with_reasons(tmp_path, cache):
    done = python(learner_folder(tmp_path), cache, "train.py")
    assert done.returncode == 0, done.stderr
    rewards = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("Reward:")]
    assert len(rewards) == 2 and rewards[0] >= 0.6 and rewards[1] < 0.3
    assert "add(2, 3) gave -1, expected 5" in done.stdout


def test_edits_to_problems_and_to_the_quality_function_change_the_next_run(tmp_path, cache):
    folder = learner_folder(tmp_path)
    dataset = folder / "simple_dataset.py"
    dataset.write_text(
        dataset.read_text().replace(
            "problems = [", 'problems = [\n    {"prompt": "Triple a number, please", "test_input": "triple_it(4)", "expected_output": "12"},', 1
        )
    )
    reward = folder / "reward_model.py"
    reward.write_text(reward.read_text().replace("return quality_reports([solution])[0].score", "return 0.123"))
    done = python(folder, cache, *TRAIN, "--output_dir", "edited")
    assert done.returncode == 0, done.stderr
    rollouts = [json.loads(line) for line in (folder / "edited" / "rollouts.jsonl").read_text().splitlines()]
    problems = {row["id"]: row for row in map(json.loads, (folder / "edited" / "problems.jsonl").read_text().splitlines())}
    assert any(problems[row["problem_id"]].get("source") == "user" for row in rollouts), "the learner's own problems come up in every episode"
    assert {row["quality"]["score"] for row in rollouts} == {0.123}
    config = json.loads((folder / "edited" / "config.json").read_text())["rlaif"]
    assert len(config["quality_hash"]) == 64 and config["config"]["batch_size"] == 2


def test_a_wrong_literal_is_explained_and_a_default_in_the_trainer_is_used(tmp_path, cache):
    folder = learner_folder(tmp_path)
    trainer = folder / "rlaif_trainer.py"
    trainer.write_text(trainer.read_text().replace("batch_size: int = 6", "batch_size: int = 3"))
    done = python(folder, cache, "train.py", "--episodes", "1", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1 episodes × 3 problems" in done.stdout
    dataset = folder / "simple_dataset.py"
    dataset.write_text(dataset.read_text().replace("\"'olleh'\"", '"olleh"'))
    done = python(folder, cache, "train.py", "--episodes", "1", "--dry-run")
    assert done.returncode == 2 and "quote" in done.stderr and "Traceback" not in done.stderr


def test_a_trainer_can_be_used_by_hand(tmp_path, cache):
    script = (
        "from rlaif_trainer import RLAIFTrainer\n"
        "trainer = RLAIFTrainer(dtype='float32', max_new_tokens=6)\n"
        "metrics = trainer.step(['Add', 'Add'], ['return a + b', 'return 0'], [1.0, 0.0])\n"
        "assert metrics['steps'] == 1 and metrics['grad_norm'] > 0, metrics\n"
        "print(trainer.generate_sample('Add two numbers')[:0] + trainer.save_model('saved'))\n"
    )
    folder = learner_folder(tmp_path)
    (folder / "mine.py").write_text(script)
    done = python(folder, cache, "mine.py")
    assert done.returncode == 0, done.stderr
    assert (folder / "saved" / "model.safetensors").exists()
