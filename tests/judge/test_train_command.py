"""`rlaif judge train` from end to end on a tiny model: what it collects, what it keeps, what it writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.cli.main import main
from rlaif.judge.labelled import read_labelled

TASKS = (("plus", "a + b"), ("minus", "a - b"), ("times", "a * b"), ("larger", "max(a, b)"), ("smaller", "min(a, b)"), ("apart", "abs(a - b)"))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    rows = []
    for number, (name, body) in enumerate(TASKS * 2):
        entry, calls = f"{name}_{number}", ((7, 3), (2, 9), (4, 4), (0, 5))
        rows.append(
            {
                "id": entry,
                "prompt": f"Return {body} ({number}).",
                "entry_point": entry,
                "signature": f"def {entry}(a, b):",
                "reference": f"def {entry}(a, b):\n    return {body}\n",
                "tests": [{"role": "graded", "input": f"{entry}({a}, {b})", "expected": repr(eval(body))} for a, b in calls],
                "split": "validation" if number == 11 else "train",
            }
        )
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(tasks: Path, model: Path, out: Path, *more: str) -> list[str]:
    words = ["judge", "train", "--base", str(model), "--out", str(out), "--collect.problems", str(tasks), "--collect.policies", str(model)]
    return [*words, "--collect.samples", "2", "--collect.max-new-tokens", "4", "--collect.per-problem", "3", "--shares", "0.4,0.3,0.3", *more]


def test_it_collects_once_then_trains_and_writes_a_judge(
    tasks: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tiny("llama"), tmp_path / "mine"
    run = tmp_path / "run"
    run.mkdir()
    answers = [{"problem_id": "plus_0", "code": f"def plus_0(a, b):\n    return {body}\n"} for body in ("b + a", "b - a", "b - a")]
    (run / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    words = command(tasks, model, out, "--collect.runs", str(run))
    assert main([*words, "--collect-only"]) == 0
    folder = tmp_path / "mine_labels"
    kinds = Counter((i.kind, i.correct) for i in read_labelled(folder / "train" / "references.jsonl"))
    assert kinds["reference", True] == 11 and kinds["mutant", False] >= 11 and not kinds["reference", False]
    assert [i.correct for i in read_labelled(folder / "train" / "run-run.jsonl")] == [True, False]  # each different answer once
    assert {i.problem.id for i in read_labelled(folder / "validation" / "references.jsonl")} == {"apart_11"}
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    capsys.readouterr()

    assert main([*words, "--epochs", "1", "--max-steps", "1", "--rank", "2", "--threads", "1", "--device", "cpu"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    shown = capsys.readouterr()
    assert "problems, +" not in shown.err and "AUROC" in shown.out and f"--judge.adapter {out}" in shown.out  # nothing was collected again
    facts = json.loads((out / "judge.json").read_text())
    assert facts["kinds"]["mutant"]["wrong"] > 0 and facts["calibrated_on"]["programs"] > 0
    assert (out / "adapter_model.safetensors").stat().st_size < 16 * 2**20
    assert any("step" in json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines())


def test_other_settings_do_not_mix_into_kept_labels(
    tasks: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tasks, tiny("llama"), tmp_path / "mine", "--collect-only", "--collect.limit", "1", "--collect.policies", "")
    assert main(words) == 0
    assert main([*words, "--collect.per-problem", "5"]) == 2
    assert "made with other settings" in capsys.readouterr().err


def test_no_run_to_learn_from_is_said(tasks: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--collect-only", "--collect.limit", "1", "--collect.policies", "", "--collect.runs", str(tmp_path / "nowhere"))
    assert main(command(tasks, tiny("llama"), tmp_path / "mine", *more)) == 2
    assert "no run to learn from" in capsys.readouterr().err
