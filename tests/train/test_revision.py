"""Constitutional revision: no hidden test reaches a prompt, only passing revisions are learnt, and a judge that is too small is told so."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.config import JudgeConfig
from rlaif.errors import Interrupted, RunFailed, UsageError
from rlaif.judge.writer import ApiWriter, Written, make_writer, usable_critique, usable_revision
from rlaif.train import collect_pairs as sampling
from rlaif.train.prefer_config import ReviseConfig
from rlaif.train.revision import program_of, revise
from rlaif.types import Problem
from tests.train.preference_helpers import fake_generate, silent

CRITIQUE = "The subtraction goes the wrong way, because adding was wanted by whoever wrote this; swap the operator."
TASK = Problem("p1", "Add 1 to a number", entry_point="add_1")


class Scripted:
    """A writer that criticises in words and writes what `program(i)` says for the problem `Add i to a number`. Keeps all it was told."""

    name = "scripted"

    def __init__(self, program: Callable[[int], str] = lambda i: f"def add_{i}(n):\n    result = {i}\n    return n + result\n") -> None:
        self.program, self.told = program, []

    def write(self, questions, *, max_tokens, seed, openings=None):
        self.told += [message["content"] for messages in questions for message in messages] + list(openings or ())
        if openings is None:
            return [Written(CRITIQUE) for _ in questions]
        tasks = [int(messages[0]["content"].split("Add ")[1].split()[0]) for messages in questions]
        return [Written(f"Here it is:\n```python\n{self.program(i)}```\n") for i in tasks]


@pytest.fixture
def sampled(monkeypatch):
    monkeypatch.setattr(sampling, "generate", fake_generate)


def settings(model: Path, problems: Path, output: Path, **changes) -> ReviseConfig:
    values = {"model": str(model), "problems": str(problems), "output_dir": output, "rounds": 3, "batch_size": 2, "group_size": 4}
    values |= {"dtype": "float32", "threads": 1, "eval_limit": 1, "eval_samples": 1, "max_new_tokens": 16, "seed": 3, "learning_rate": 1e-3}
    return ReviseConfig(**{**values, **changes})


def test_revisions_that_pass_are_kept_and_learnt(tiny_llama, problem_file, tmp_path, sampled):
    done = revise(settings(tiny_llama, problem_file, tmp_path / "run"), console=silent(), writer=Scripted())
    rows = [json.loads(line) for line in (done.path / "revisions.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 2 * 4 and all(row["passed_after"] for row in rows if row["kept"])
    assert done.summary["usable_critique_share"] == 1.0 and done.summary["repaired_share"] == 1.0
    assert done.summary["too_small"] == [] and done.summary["sampled_again_share"] < 1
    assert done.summary["samples"] == 3 * len(rows), "an answer, a critique and a revision each"
    assert done.summary["taught"] > 0 and (done.path / "model" / "config.json").exists() and done.lift.comparison is not None
    from transformers import AutoModelForCausalLM

    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tiny_llama, done.path))
    assert any(not before[name].equal(after[name]) for name in before)


def test_no_graded_or_held_out_value_reaches_a_prompt(tiny_llama, tmp_path, sampled):
    """Every hidden test carries values that occur nowhere else; none may be in anything that the writer is told."""
    rows = []
    for i in range(1, 6, 2):
        hidden = [
            {"role": role, "input": f"add_{i}({700000 + n})", "expected": str(700000 + n + i)} for role in ("graded", "held_out") for n in range(3)
        ]
        shown = [{"role": "shown", "input": f"add_{i}(810000)", "expected": str(810000 + i)}]
        task = {"id": f"p{i}", "prompt": f"Add {i} to a number", "reference": f"def add_{i}(n):\n    return n + 990000 + {i} - 990000\n"}
        rows.append(task | {"split": "train", "tests": shown + hidden})
        rows.append(task | {"id": f"t{i}", "split": "test", "tests": hidden})
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    writer = Scripted()
    revise(settings(tiny_llama, path, tmp_path / "run"), console=silent(), writer=writer)
    told = "\n".join(writer.told)
    assert told.count(str(810000 + 1)) > 0, "shown tests are told, so this test can see values at all"
    assert "70000" not in told, "an input or an expected value of a hidden test"
    assert "99000" not in told, "the reference solution"
    assert "passed" not in told and "failed" not in told, "nor how it fared"


def test_what_does_not_pass_is_not_learnt(tiny_llama, problem_file, tmp_path, sampled):
    writer = Scripted(lambda i: f"def add_{i}(n):\n    return n - {i} - 1\n")
    with pytest.raises(RunFailed, match="no revision to learn from"):
        revise(settings(tiny_llama, problem_file, tmp_path / "run"), console=silent(), writer=writer)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["kept"] == 0 and summary["broken_share"] == 1.0
    assert any("sampling again" in reason for reason in summary["too_small"])
    assert not (tmp_path / "run" / "model" / "config.json").exists()


def test_a_judge_that_only_repeats_is_too_small(tiny_llama, problem_file, tmp_path, sampled):
    class Parrot(Scripted):
        def write(self, questions, *, max_tokens, seed, openings=None):
            return [Written(messages[0]["content"].split("Program:\n")[1].split("```\n")[0] + "```") for messages in questions]

    with pytest.raises(RunFailed):
        revise(settings(tiny_llama, problem_file, tmp_path / "run"), console=silent(), writer=Parrot())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["usable_critique_share"] == 0.0 and summary["usable_revision_share"] == 0.0
    assert summary["too_small"][0].startswith("only 0% of its critiques")


def test_interrupted_and_resumed_the_revisions_are_the_same(tiny_llama, problem_file, tmp_path, sampled):
    whole = revise(settings(tiny_llama, problem_file, tmp_path / "whole"), console=silent(), writer=Scripted())

    class Interrupting(Scripted):
        def write(self, questions, **options):
            if len(self.told) > 30:
                signal.raise_signal(signal.SIGINT)
            return super().write(questions, **options)

    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="round 1 is saved"):
        revise(settings(tiny_llama, problem_file, run), console=silent(), writer=Interrupting())
    again = revise(settings(tiny_llama, problem_file, run, resume=True), console=silent(), writer=Scripted())
    for name in ("revisions.jsonl", "model/model.safetensors"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_local_model_writes_and_the_tiny_one_is_measured(tiny_llama, problem_file, tmp_path, sampled):
    judge = JudgeConfig(kind="local", model=str(tiny_llama))
    config = settings(tiny_llama, problem_file, tmp_path / "run", judge=judge, critique_tokens=6, revision_tokens=6)
    with pytest.raises((RunFailed, UsageError)):
        revise(config, console=silent())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["writer"] == str(tiny_llama) and summary["usable_critique_share"] < 0.5


def test_judges_that_cannot_write_are_refused():
    for kind in ("none", "reward_model"):
        with pytest.raises(UsageError, match="cannot write"):
            make_writer(JudgeConfig(kind=kind))
    with pytest.raises(UsageError, match="needs a model"):
        make_writer(JudgeConfig(kind="local"))


def test_a_server_that_fails_gives_no_critique():
    class Failing:
        name = "api:none"

        def ask(self, questions, **options):
            from rlaif.judge.api import AskFailed

            return [AskFailed("it is down")] * len(questions)

    (written,) = ApiWriter(Failing()).write([[{"role": "user", "content": "x"}]], max_tokens=5, seed=0)
    assert written.error == "it is down" and program_of(written) is None and not usable_critique(written, TASK, "x")


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 3\ny = 4", "x = 3\ny = 4\n"),
        ("x = 5", "x = 5\n"),
        ("", None),
    ],
)
def test_the_program_in_a_reply(text, program):
    assert program_of(Written(text)) == program


def test_what_counts_as_usable():
    code = "def add_1(n):\n    return n - 1\n"
    assert usable_critique(Written(CRITIQUE), TASK, code)
    assert not usable_critique(Written(CRITIQUE, finished=False), TASK, code), "cut off"
    assert not usable_critique(Written(f"```python\n{code}```"), TASK, code), "no words"
    assert not usable_critique(Written("Add 1 to a number. return n"), TASK, code), "the task again"
    assert usable_revision(TASK, code, "def add_1(n):\n    return n + 1\n")
    assert not usable_revision(TASK, code, "def add_1(n):  # better\n    return n - 1\n"), "the same program"
    assert not usable_revision(TASK, code, "def other(n):\n    return n + 1\n") and not usable_revision(TASK, code, None)
