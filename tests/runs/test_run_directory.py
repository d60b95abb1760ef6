import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config import TrainConfig
from rlaif.errors import RunFailed, UsageError
from rlaif.runs import RunDir, is_run, latest_run, rollout_from_row, rollout_to_row
from rlaif.runs.files import append_lines, dumps, read_lines, write_json_atomic
from rlaif.types import Problem, TestCase
from tests.synthetic_run import hostile_rollout, make_run, problems, rollout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "a", episodes=4).path


def test_default_folder_is_new_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = RunDir.create(), RunDir.create()
    assert first.path != second.path and first.path.parent == second.path.parent == Path("runs")
    assert is_run(first.path)


def test_existing_run_names_both_ways_out(finished):
    before = sorted(finished.iterdir())
    with pytest.raises(UsageError, match=r"--resume.*--overwrite") as caught:
        RunDir.create(finished)
    assert caught.value.exit_code == 2
    assert "episode 4 of 4" in str(caught.value)
    assert sorted(finished.iterdir()) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UsageError, match="not empty"):
        RunDir.create(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_overwrite_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    make_run(folder, episodes=1)
    outside.mkdir()
    (outside / "weights").write_text("mine")
    (folder / "notes.md").write_text("mine")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "x").write_text("old")
    (folder / "model").symlink_to(outside)
    run = RunDir.create(folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == {"notes.md", "config.json", ".lock"}
    assert (outside / "weights").exists(), "a link is removed, not followed"
    assert list(run.iter_metrics()) == []


def test_a_file_and_an_empty_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunDir.create(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert RunDir.create(tmp_path / "empty").path.name == "empty"


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        RunDir.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a run's folder"):
        RunDir.open(tmp_path)


def test_one_writer_at_a_time(tmp_path):
    run = RunDir.create(tmp_path / "a")
    with pytest.raises(UsageError, match="going on in another process"):
        RunDir.resume(run.path)
    run.close()
    RunDir.resume(run.path).close()


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    code = f"import os; from rlaif.runs import RunDir; RunDir.create({str(tmp_path / 'a')!r}); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    RunDir.resume(tmp_path / "a").close()


def test_rollouts_come_back_equal(finished):
    import random

    rng = random.Random(1)
    tasks = problems()
    known = {problem.id: problem for problem, _ in tasks}
    for _ in range(50):
        made = rollout(rng, 3, *rng.choice(tasks), 0.5)
        assert rollout_from_row(json.loads(dumps(rollout_to_row(made))), known) == made
    assert len(list(RunDir.open(finished).iter_rollouts())) == 4 * 32 + 1


def test_hostile_text_survives_the_log(tmp_path):
    problem = Problem("p", "\ud800 \x00 \u2028", (TestCase("graded", "f(1)", "\n"),))
    made = hostile_rollout(1, problem)
    run = RunDir.create(tmp_path / "a")
    run.log_rollouts([made])
    row = next(run.iter_rollouts())
    assert rollout_from_row(row, run.problems()) == made
    assert len((run.path / "rollouts.jsonl").read_bytes().splitlines()) == 1


@given(st.text(), st.floats(0, 1), st.integers(1, 10**6))
def test_any_text_makes_one_line(text, reward, episode):
    line = dumps({"code": text, "reward": reward, "episode": episode})
    assert "\n" not in line and json.loads(line) == {"code": text, "reward": reward, "episode": episode}


def test_each_problem_is_stored_once(finished):
    ids = [row["id"] for _, row in read_lines(finished / "problems.jsonl")]
    assert len(ids) == len(set(ids)) > 3
    assert set(ids) == {row["problem_id"] for row in RunDir.open(finished).iter_rollouts()}


def test_figures_that_are_no_numbers_become_null(tmp_path):
    run = RunDir.create(tmp_path / "a")
    run.log_metrics({"episode": 1, "reward_mean": float("nan"), "value_loss": float("inf"), "nested": {"x": [float("-inf"), 1.0]}})
    row = next(run.iter_metrics())
    assert row["reward_mean"] is None and row["value_loss"] is None and row["nested"] == {"x": [None, 1.0]}


def test_a_torn_last_line_is_not_read_and_goes_on_resume(tmp_path):
    run = make_run(tmp_path / "a", episodes=2)
    with open(run.metrics_path, "ab") as file:
        file.write(b'{"episode": 3, "rewa')
    assert [row["episode"] for row in run.iter_metrics()] == [1, 2]
    resumed = RunDir.resume(run.path)
    resumed.log_metrics({"episode": 3})
    assert [row["episode"] for row in resumed.iter_metrics()] == [1, 2, 3]


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(RunFailed, match="line 2"):
        list(read_lines(path))


def test_truncating_to_a_checkpoint_leaves_no_line_twice(tmp_path):
    run = make_run(tmp_path / "a", episodes=6)
    run.write_evaluation("episode-0003", {})
    run.write_evaluation("episode-0006", {})
    lines = run.metrics_path.read_text().splitlines()
    gone = run.truncate_to(4)
    assert gone == 2 + 64 + 0 + len([1 for row in [4] if row > 4])
    assert run.metrics_path.read_text().splitlines() == lines[:4], "kept lines are the same bytes"
    assert max(row["episode"] for row in run.iter_rollouts()) == 4
    assert (run.path / "episode-0003.json").exists() and not (run.path / "episode-0006.json").exists()
    assert not (run.path / "after.json").exists() and (run.path / "before.json").exists()
    assert run.truncate_to(4) == 0


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json_atomic(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"No space left.*\n.*\n.*--resume") as caught:
        write_json_atomic(path, {"new": 2})
    assert caught.value.exit_code == 1
    assert json.loads(path.read_text()) == {"old": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_takes_an_append_back(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"a": 1}])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="No space left"):
        append_lines(path, [{"a": 2}])
    monkeypatch.undo()
    append_lines(path, [{"a": 3}])
    assert [row["a"] for _, row in read_lines(path)] == [1, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_device(tmp_path):
    (tmp_path / "x.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunFailed, match="No space left"):
        append_lines(tmp_path / "x.jsonl", [{"a": 1}])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(RunFailed, match="No permission"):
        RunDir.create(tmp_path / "locked" / "run")


def test_config_and_environment(tmp_path):
    run = RunDir.create(tmp_path / "a")
    run.write_config(TrainConfig(episodes=3), quality_hash="abc")
    run.write_env(seed=7)
    assert TrainConfig(**run.read_config()) == TrainConfig(episodes=3)
    env = run.read_json("env.json")
    assert env["seed"] == 7 and env["packages"]["torch"] and env["machine"]["cores"] >= 1
    words = (run.path / "env.json").read_text()
    assert os.uname().nodename not in words or len(os.uname().nodename) < 4, "no host name"


def test_published_model_loads_from_the_run_itself(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    run = RunDir.create(tmp_path / "a")
    run.write_config(TrainConfig(episodes=3))
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    model.save_pretrained(run.model_path)
    run.publish_model()
    again = AutoModelForCausalLM.from_pretrained(run.path)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert is_run(run.path) and run.read_config()["episodes"] == 3
    run.write_config(TrainConfig(episodes=4))  # a resumed run writes its settings again
    AutoModelForCausalLM.from_pretrained(run.path)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(run.model_path)
    run.publish_model()
    assert AutoModelForCausalLM.from_pretrained(run.path).lm_head.weight.abs().sum() == 0
    run.close()
    RunDir.create(run.path, overwrite=True)
    assert {path.name for path in run.path.iterdir()} == {"config.json", ".lock"}


def test_latest_run(tmp_path):
    assert latest_run(tmp_path / "none") is None
    for name, when in (("a", 100), ("b", 300), ("c", 200)):
        run = RunDir.create(tmp_path / name)
        os.utime(run.config_path, (when, when))
    (tmp_path / "not-a-run").mkdir()
    assert latest_run(tmp_path).path.name == "b"
    assert latest_run(tmp_path, with_model=True) is None
    (tmp_path / "c" / "model").mkdir()
    (tmp_path / "c" / "model" / "config.json").write_text("{}")
    assert latest_run(tmp_path, with_model=True).path.name == "c"
