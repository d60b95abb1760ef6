"""`rlaif evaluate`: which model and which problems, what is printed, and the exit code of --fail-under. And `problems`, `report`, `doctor`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.cli.main import available
from rlaif.problems import load_problems
from rlaif.runs import RunDir
from tests.synthetic_run import make_run

TASK = "Write a function add(a, b) that adds two numbers"


@pytest.fixture
def problem_file(here: Path) -> Path:
    """Two held-out problems: the one that the tiny model has learnt, and one that it has not."""
    tests = [{"role": "graded", "input": f"add({n}, 2)", "expected": str(n + 2)} for n in range(3)]
    known = {"id": "mine/add", "prompt": TASK, "signature": "def add(a, b):", "tests": tests, "difficulty": "easy", "split": "test"}
    other = [{"role": "graded", "input": "cube(3)", "expected": "27"}]
    unknown = {"id": "mine/cube", "prompt": "Cube a number", "signature": "def cube(x):", "tests": other, "difficulty": "hard", "split": "test"}
    path = here / "two.jsonl"
    path.write_text(json.dumps(known) + "\n" + json.dumps(unknown) + "\n")
    return path


MODEL = ("evaluate", "--model_path", "smollm2-135m", "--max_new_tokens", "40")


def test_a_model_is_evaluated_with_intervals_and_per_difficulty(problem_file: Path, with_model: Path, rlaif: Callable):
    done = rlaif(*MODEL, "--problems", "two.jsonl")
    assert done.code == 0, done.err
    assert "success rate 50.0% (95% interval" in done.out and "good progress" in done.out
    assert "easy     100.0%" in done.out and "hard     0.0%" in done.out
    assert "2 answers to 2 problems" in done.err


def test_json_has_stdout_to_itself(problem_file: Path, with_model: Path, rlaif: Callable):
    done = rlaif(*MODEL, "--problems", "two.jsonl", "--samples", "3", "--json")
    (result,) = done.rows
    assert result["success_rate"]["count"] == 2 and set(result["pass_at"]) == {"1", "3"}
    assert {row["id"]: row["samples"] for row in result["rows"]} == {"mine/add": 3, "mine/cube": 3}


def test_fail_under_prints_the_result_first(problem_file: Path, with_model: Path, rlaif: Callable):
    low = rlaif(*MODEL, "--problems", "two.jsonl", "--fail-under", "0.4")
    high = rlaif(*MODEL, "--problems", "two.jsonl", "--fail-under", "0.6")
    assert (low.code, high.code) == (0, 4)
    assert "success rate 50.0%" in high.out and "below 60" in high.err


def test_two_models_are_compared_problem_by_problem(problem_file: Path, with_model: Path, rlaif: Callable):
    done = rlaif(*MODEL, "--problems", "two.jsonl", "--baseline", "smollm2-135m", "--json")
    (result,) = done.rows
    assert result["comparison"]["overall"]["difference"]["value"] == 0 and result["baseline"]["success_rate"]["value"] == 0.5


def test_controls_are_each_compared_with_the_first(problem_file: Path, with_model: Path, rlaif: Callable):
    copy = with_model / "models" / "smollm2-135m"
    done = rlaif(*MODEL, "--problems", "two.jsonl", "--baseline", f"smollm2-135m,{copy}", "--json")
    (result,) = done.rows
    assert [(row["name"], row["wins"], row["losses"]) for row in result["controls"]] == [(str(copy), 0, 0)]
    assert "No clear change" in result["controls"][0]["words"]


def test_answers_are_kept_and_can_be_scored_again(problem_file: Path, with_model: Path, rlaif: Callable):
    assert rlaif(*MODEL, "--problems", "two.jsonl", "--answers", "answers.jsonl").code == 0
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert {row["task_id"]: row["passed"] for row in rows} == {"mine/add": True, "mine/cube": False}
    (again,) = rlaif("evaluate", "--completions", "answers.jsonl", "--problems", "two.jsonl", "--json").rows
    assert again["success_rate"]["value"] == 0.5


def test_a_run_evaluated_on_another_set_says_what_it_was_trained_on(problem_file: Path, with_model: Path, rlaif: Callable):
    (copied,) = [json.loads(line) for line in problem_file.read_text().splitlines() if "mine/add" in line]
    tests = [{"role": "graded", "input": "add(1, 2)", "expected": "3"}]
    Path("trained.jsonl").write_text(json.dumps(copied | {"id": "trained/add", "split": "train", "tests": tests}) + "\n")
    _finished_run(Path("runs/new"), with_model, problems="trained.jsonl", max_new_tokens=40)
    (result,) = rlaif("evaluate", "--problems", "two.jsonl", "--json").rows
    assert result["overlap"]["contaminated"] == ["mine/add"]
    words = rlaif("evaluate", "--problems", "two.jsonl").out
    assert "1 of 2 evaluation problems (50.0%) are close to a training problem" in words
    Path("trained.jsonl").unlink()
    gone = rlaif("evaluate", "--problems", "two.jsonl", "--json")
    assert gone.code == 0 and "overlap" not in gone.rows[0] and "Overlap with trained.jsonl unknown" in gone.err


def _finished_run(path: Path, model_cache: Path, **config: object) -> RunDir:
    """A run whose model is the tiny one."""
    run = RunDir.create(path)
    run.write_config({"model": "smollm2-135m", **config})
    run.model_path.mkdir()
    for file in (model_cache / "models" / "smollm2-135m").iterdir():
        os.link(file, run.model_path / file.name)
    run.publish_model()
    run.write_status("done", 1, 1)
    run.close()
    return run


def test_the_latest_run_is_evaluated_as_it_evaluates_itself(problem_file: Path, with_model: Path, rlaif: Callable):
    _finished_run(Path("runs/old"), with_model, problems="builtin", max_new_tokens=1)
    os.utime(Path("runs/old/status.json"), (1, 1))
    os.utime(Path("runs/old/config.json"), (1, 1))
    _finished_run(
        Path("runs/new"), with_model, problems="two.jsonl", max_new_tokens=40, eval_limit=1, eval_samples=2, temperature=1.0, eval_temperature=0.4
    )
    done = rlaif("evaluate", "--json", "--baseline", "base")
    assert done.code == 0, done.err
    (result,) = done.rows
    assert (result["model"], result["protocol"]["problems"], result["protocol"]["max_new_tokens"]) == ("runs/new", "two.jsonl", 40)
    assert (result["protocol"]["samples"], result["protocol"]["temperature"]) == (2, 0.4)
    assert [row["id"] for row in result["rows"]] == ["mine/add"]
    assert result["baseline"]["model"] == "smollm2-135m"
    (own,) = rlaif("evaluate", "--json", "--limit", "2", "--max_new_tokens", "1").rows  # flags win over the run
    assert len(own["rows"]) == 2 and own["protocol"]["max_new_tokens"] == 1
    (named,) = rlaif("evaluate", "--json", "--model_path", "runs/new").rows
    assert named["rows"] == result["rows"]


def test_completions_need_no_model(problem_file: Path, here: Path, rlaif: Callable):
    rows = [
        {"task_id": "mine/add", "completion": "    return a + b\n"},
        {"task_id": "mine/cube", "completion": "def cube(x):\n    return x * x\n"},
        {"task_id": "nobody", "completion": ""},
    ]
    (here / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "oops\n")
    done = rlaif("evaluate", "--completions", "c.jsonl", "--problems", "two.jsonl", "--json")
    assert done.code == 0, done.err
    (result,) = done.rows
    assert result["success_rate"]["value"] == 0.5 and (result["scored"], result["bad_count"]) == (2, 2)
    assert [bad["line"] for bad in result["bad_lines"]] == [3, 4]


def test_completions_with_flags_that_mean_nothing_there(problem_file: Path, here: Path, rlaif: Callable):
    (here / "c.jsonl").write_text(json.dumps({"task_id": "mine/add", "completion": "    return a + b\n"}) + "\n")
    line = ("evaluate", "--completions", "c.jsonl", "--problems", "two.jsonl")
    for flag in ("--samples 3", "--temperature 0.5", "--answers a.jsonl", "--model_path smollm2-135m"):
        done = rlaif(*line, *flag.split())
        assert done.code == 2 and flag.split()[0] in done.err and "--completions loads none" in done.err, flag
    (result,) = rlaif(*line, "--limit", "1", "--json").rows
    assert result["missing"] == [] and result["protocol"]["split"] == "all"
    for k in ("0", "-1"):
        done = rlaif(*line, "--k", k)
        assert done.code == 2 and "k of at least 1" in done.err


@pytest.mark.skipif("RLAIF_SHARED" not in os.environ, reason="needs RLAIF_SHARED/data/humaneval.jsonl")
def test_humaneval_completions(here: Path, rlaif: Callable):
    problems = Path(os.environ["RLAIF_SHARED"]) / "data" / "humaneval.jsonl"
    rows = [json.loads(line) for line in problems.read_text().splitlines()]
    lines = [{"task_id": row["task_id"], "completion": row["canonical_solution"] if place % 2 else "    pass\n"} for place, row in enumerate(rows)]
    (here / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (result,) = rlaif("evaluate", "--completions", "c.jsonl", "--problems", str(problems), "--json").rows
    assert result["success_rate"]["value"] == 0.5 and result["scored"] == 164


# -- the small commands ----------------------------------------------------------------------------------------------------------------


def test_an_exported_set_loads_again_equal(here: Path, rlaif: Callable):
    done = rlaif("problems", "export", "builtin/strings", "--out", "mine.jsonl")
    assert done.code == 0, done.err
    assert load_problems("mine.jsonl") == load_problems("builtin/strings")
    on_stdout = rlaif("problems", "export", "builtin/strings", "--limit", "2")
    assert on_stdout.out.splitlines() == (here / "mine.jsonl").read_text().splitlines()[:2]


def test_lists_and_counts(rlaif: Callable):
    rows = rlaif("problems", "list", "--difficulty", "hard", "--split", "test", "--json").rows
    assert rows and {(row["difficulty"], row["split"]) for row in rows} == {("hard", "test")}
    (count,) = rlaif("problems", "list", "--json", "--count").rows
    assert count["problems"] == len(load_problems("builtin")) == sum(count["topic"].values())


def test_a_listed_prompt_cannot_steer_the_terminal(here: Path, rlaif: Callable):
    row = {"id": "\x1b[2Ja", "prompt": "Wipe \x1b]0;owned\x07 it.", "test_input": "f(1)", "expected_output": "1"}
    (here / "evil.jsonl").write_text(json.dumps(row))
    out = rlaif("problems", "list", "evil.jsonl").out
    assert "\x1b" not in out and "\\x1b]0;owned" in out


def test_fresh_problems_are_fixed_by_the_seed_and_can_be_trained_on(here: Path, rlaif: Callable):
    words = ("problems", "generate", "--family", "pipeline,grid_paths", "-n", "4", "--seed", "7")
    done = rlaif(*words, "--out", "fresh.jsonl")
    assert done.code == 0 and [one.topic for one in load_problems("fresh.jsonl")] == ["pipeline", "grid_paths"] * 2
    assert rlaif(*words).out == (here / "fresh.jsonl").read_text()
    assert rlaif(*words, "--out", "fresh.jsonl").code == 2 and rlaif(*words, "--out", "fresh.jsonl", "--force").code == 0
    assert "did you mean pipeline?" in rlaif("problems", "generate", "--family", "pipelin").err
    assert "grid_paths" in rlaif("problems", "generate", "--list").out


def test_check_names_the_problem_and_the_test(here: Path, rlaif: Callable):
    right = json.loads(rlaif("problems", "export", "builtin", "--limit", "1").out)
    wrong = right | {"id": "mine/wrong", "tests": [test | {"expected": "'no'"} for test in right["tests"]]}
    (here / "a.jsonl").write_text(json.dumps(right) + "\n" + json.dumps(wrong) + "\n")
    done = rlaif("problems", "check", "a.jsonl", "--json")
    (found,) = done.rows
    assert (done.code, found["problems"], found["with_errors"]) == (1, 2, 1)
    assert {one["problem_id"] for one in found["findings"] if one["error"]} == {"mine/wrong"}


def test_report_writes_the_page_of_a_run_and_of_two(here: Path, rlaif: Callable):
    make_run(Path("runs/a"), episodes=2)
    make_run(Path("runs/b"), episodes=2)
    assert Path(rlaif("report", "runs/a").out.strip()) == Path("runs/a/report.html")
    assert Path(rlaif("report", "--out", "latest.html").out.strip()).read_text().startswith("<!")
    both = rlaif("report", "runs/a", "runs/b")
    assert both.code == 0 and Path(both.out.strip()).name == "compare.html"


def test_doctor_names_what_there_is(with_model: Path, rlaif: Callable):
    done = rlaif("doctor", "--json")
    (result,) = done.rows
    found = {check["name"]: check for check in result["checks"]}
    assert done.code == 0 and result["ok"]
    assert {"machine", "versions", "device", "threads", "sandbox", "program", "model", "judge", "disk"} <= found.keys()
    assert "torch" in found["versions"]["text"] and "grade" in found["sandbox"]["text"] and str(with_model) in found["model"]["text"]


def test_a_broken_part_does_not_hide_the_others(rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    from rlaif.errors import SandboxUnavailable

    def broken(*_: object, **__: object) -> None:
        raise SandboxUnavailable("No isolation can be had here", "", "--unsafe-exec")

    monkeypatch.setattr("rlaif.sandbox.Sandbox", broken)
    done = rlaif("doctor")
    assert done.code == 3 and "MISSING sandbox" in done.out and "No isolation" in done.out and "disk" in done.out


def test_only_commands_that_exist_are_in_the_help(rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("rlaif.cli.main", fromlist=["COMMANDS"]).COMMANDS, "nonsense", "promised")
    assert "nonsense" not in available() and "promised" not in rlaif("--help").out
    assert rlaif("nonsense").code == 2
