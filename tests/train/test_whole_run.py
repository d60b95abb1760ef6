"""What a run keeps and says beside its weights: distance from the start, costs, compute type, overlap; and what a dry run shows of it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlaif.config import JudgeConfig, TrainConfig
from rlaif.errors import UsageError
from rlaif.judge.ensemble import EnsembleJudge
from rlaif.problems import load_problems
from rlaif.runs import Console, RunDir
from rlaif.train.drift import Drift
from rlaif.train.loop import train
from rlaif.train.measure import spent_usd
from rlaif.train.monitor import Alarm, Monitor
from rlaif.train.samples import cost_in_words, judge_call
from tests.train.conftest import made_up_batch, tiny_config, tiny_policy


def whole_run(model: Path, problems: Path, folder: Path, **changes) -> list[dict]:
    """Two episodes; the rows of metrics.jsonl."""
    settings = {"episodes": 2, "save_every": 1, "max_new_tokens": 6, "eval_limit": 2, "learning_rate": 1e-2, **changes}
    with open(os.devnull, "w") as nowhere:
        config = tiny_config(model=str(model), problems=str(problems), output_dir=folder, **settings)
        train(config, console=Console(file=nowhere, live=False))
    return list(RunDir.open(folder).iter_metrics())


def test_drift_is_zero_at_first_and_the_kl_afterwards(tiny_llama: Path, tmp_path: Path):
    policy, config = tiny_policy(tiny_llama), tiny_config()
    drift = Drift.begin(policy, made_up_batch(policy, P=3, G=4), config)
    assert drift.measure(policy, config) == 0.0 and [len(group) for group in drift.completion_ids] == [2, 2, 2]
    drift.save(tmp_path)
    assert Drift.load(tmp_path) == drift and Drift.load(tmp_path / "nowhere") is None
    (tmp_path / "drift.json").write_text('{"prompt_ids": [[1]], "completion_ids": [[2]], "start_logps": [[-0.5]]}')  # as runs once wrote it
    assert Drift.load(tmp_path) is None
    # by hand: every log-probability lower by 0.3 makes r - 1 - log r = e^-0.3 - 1 + 0.3
    higher = Drift(drift.prompt_ids, drift.completion_ids, [[[logp + 0.3 for logp in row] for row in group] for group in drift.start_logps])
    assert higher.measure(policy, config) == pytest.approx(0.0408182, abs=1e-5)


def test_a_run_logs_its_distance_its_costs_and_its_compute_type(tiny_llama: Path, problem_file: Path, tmp_path: Path):
    rows = whole_run(tiny_llama, problem_file, tmp_path / "run", eval_every=1, eval_samples=2, temperature=1.0, eval_temperature=0.4)
    assert [row["approx_kl"] for row in rows if "approx_kl" in row] == [0.0] * len(rows), "one step a batch: of no use as a distance"
    assert all(row["start_kl"] > 0 for row in rows if row["steps"])
    assert all(row["eval_s"] > 0 and row["save_s"] > 0 for row in rows)
    run = RunDir.open(tmp_path / "run")
    assert run.read_json("end.json")["eval_s"] > 0 and run.read_config()["dtype"] == "float32"
    assert run.read_json("overlap.json")["dropped"] == 0
    assert {(found["protocol"]["samples"], found["protocol"]["temperature"]) for found in run.evaluations().values()} == {(2, 0.4)}


@pytest.mark.parametrize("asked", [{}, {"dtype": "auto"}])
def test_a_resumed_run_computes_as_it_began(asked: dict, tiny_llama: Path, problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlaif.policy.model.fast_bf16", lambda kind: False)
    whole_run(tiny_llama, problem_file, tmp_path / "run", dtype="auto", episodes=1)
    monkeypatch.setattr("rlaif.policy.model.fast_bf16", lambda kind: True)  # the probe comes out otherwise on a busier machine
    with open(os.devnull, "w") as nowhere:
        train(TrainConfig(output_dir=tmp_path / "run", resume=True, episodes=2, **asked), console=Console(file=nowhere, live=False))
    assert json.loads((tmp_path / "run" / "env.json").read_text())["compute_dtype"] == str(torch.float32)


def test_overlap_with_another_evaluation_set_is_said_and_can_be_dropped(tiny_llama: Path, problem_file: Path, tmp_path: Path):
    twin = json.loads(problem_file.read_text().splitlines()[1]) | {"id": "twin", "split": "test", "prompt": "Add 1 to a number!"}
    (tmp_path / "other.jsonl").write_text(json.dumps(twin) + "\n")
    said = io.StringIO()
    base = {"model": str(tiny_llama), "problems": str(problem_file), "eval_problems": str(tmp_path / "other.jsonl"), "dry_run": True}
    found = train(tiny_config(**base), console=Console(file=said, live=False)).description["overlap"]
    assert found["contaminated"] == ["twin"] and "twin ~ p1" in said.getvalue() and "--drop_overlap" in said.getvalue()
    said = io.StringIO()
    description = train(tiny_config(**base, drop_overlap=True), console=Console(file=said, live=False)).description
    assert description["train_problems"] == 2 and "Left out for it: 1 training problems" in said.getvalue()


def test_a_dry_run_shows_a_prompt_and_a_judge_call(tiny_llama: Path, problem_file: Path):
    said = io.StringIO()
    config = tiny_config(model=str(tiny_llama), problems=str(problem_file), dry_run=True, feedback="hybrid", episodes=3)
    facts = train(config, console=Console(file=said, live=False)).description
    assert "Add 1 to a number" in facts["sample_prompt"] and facts["sample_prompt"].splitlines()[-1] in said.getvalue()
    assert "def add_1(" in facts["sample_judge_prompt"]
    assert "Is this code correct? Yes or No?" in said.getvalue() and "at most 18 calls" in said.getvalue()
    said = io.StringIO()
    facts = train(config.model_copy(update={"feedback": "execution"}), console=Console(file=said, live=False)).description
    assert "none is asked" in said.getvalue() and "sample_judge_prompt" not in facts


def test_a_dry_run_of_a_resumed_run_is_about_that_run(tiny_llama: Path, problem_file: Path, tmp_path: Path):
    run = RunDir.create(tmp_path / "run")
    run.write_config(tiny_config(model=str(tiny_llama), problems=str(problem_file), episodes=4, group_size=3))
    run.write_status("interrupted", 1, 4)
    run.close()
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    said = io.StringIO()
    asked = TrainConfig(output_dir=run.path, resume=True, dry_run=True)
    facts = train(asked, console=Console(file=said, live=False)).description
    saved = tiny_config(group_size=3)
    assert facts["samples"] == 3 * saved.batch_size * saved.group_size and "3 episodes are left" in said.getvalue()
    assert facts["model"] == str(tiny_llama) and {path: path.read_bytes() for path in run.path.iterdir()} == before
    with pytest.raises(UsageError, match="with another group_size"):
        train(TrainConfig(output_dir=run.path, resume=True, dry_run=True, group_size=5), console=Console(file=said, live=False))


def test_the_price_of_a_paid_judge(tiny_llama: Path):
    judge = JudgeConfig(kind="api", model="m", usd_per_million_prompt_tokens=2.0, usd_per_million_completion_tokens=10.0)
    call = judge_call(load_problems("builtin", limit=1)[0], TrainConfig(judge=judge), tiny_llama)
    assert call is not None and "JSON object" in call.text
    assert call.usd_at_most == pytest.approx((2.0 * call.prompt_tokens + 10.0 * 400) / 1e6)
    assert f"${call.usd_at_most * 1000:.2f} in all" in cost_in_words(call, 1000, judge)
    unpriced = judge.model_copy(update={"usd_per_million_prompt_tokens": None})
    assert "give both prices" in cost_in_words(
        judge_call(load_problems("builtin", limit=1)[0], TrainConfig(judge=unpriced), tiny_llama), 10, unpriced
    )


def test_spend_is_that_of_all_priced_judges():
    paid = SimpleNamespace(name="paid", config=JudgeConfig(usd_per_million_prompt_tokens=1.0), budget=SimpleNamespace(spent_usd=0.5))
    free = SimpleNamespace(name="free")
    assert spent_usd(None) is None and spent_usd(free) is None and spent_usd(paid) == 0.5
    assert spent_usd(EnsembleJudge([paid, free, paid], "worst")) == 1.0


def test_an_alarm_says_where_things_were_best(tmp_path: Path):
    assert Alarm(9, "judge_drift", "Drift.", True, 4).advice == "Drift. The held-out pass rate was best around episode 4."
    run = RunDir.create(tmp_path / "run")
    run.log_alarm(9, "judge_drift", "Drift.", 4)
    run.log_alarm(9, "no_signal", "Nothing.")
    assert [row.get("best_episode") for row in run.iter_alarms()] == [4, None]
    assert [alarm.kind for alarm in Monitor().observe(1, [], {"start_kl": 1.5})] == ["far_from_start"]
