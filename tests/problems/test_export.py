"""Exported rows have the layout that each trainer reads, carry the problem whole, and never a held-out test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlaif.errors import EnvironmentFailure, ProblemFileError, UsageError
from rlaif.problems import load_problems
from rlaif.problems.export import chat, export_problems, export_row, unseal
from rlaif.types import Problem, TestCase

PROBLEMS = load_problems("builtin", limit=5)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("format", "keys", "sealed"),
    [
        ("trl", {"prompt", "problem", "problem_id"}, lambda row: row["problem"]),
        ("verl", {"data_source", "prompt", "ability", "reward_model", "extra_info"}, lambda row: row["reward_model"]["ground_truth"]),
        ("openrlhf", {"input", "label"}, lambda row: row["label"]),
        ("verifiers", {"prompt", "answer", "info"}, lambda row: row["answer"]),
    ],
)
def test_layouts(format: str, keys: set[str], sealed, tmp_path: Path) -> None:
    assert export_problems(PROBLEMS, format, tmp_path / "new" / "out.jsonl") == 5
    rows = read(tmp_path / "new" / "out.jsonl")
    assert all(set(row) == keys for row in rows)
    for row, problem in zip(rows, PROBLEMS, strict=True):
        kept = replace(problem, tests=tuple(test for test in problem.tests if test.role != "held_out"))
        assert unseal(sealed(row)) == kept
        secret = problem.tests_of("held_out")[0]
        assert json.dumps(secret.input)[1:-1] not in json.dumps(row)


def test_prompts_show_shown_tests_and_no_graded_ones() -> None:
    problem = PROBLEMS[0]
    text = chat(problem)[-1]["content"]
    assert problem.tests_of("shown")[0].input in text and problem.signature in text
    for test in problem.tests_of("graded", "held_out"):
        assert f"{test.input} returns" not in text
    stdio = Problem(id="s", prompt="Double it.", tests=(TestCase("shown", "1\n", "2\n", "stdio"), TestCase("graded", "77\n", "154\n", "stdio")))
    text = chat(stdio)[-1]["content"]
    assert "reads standard input" in text and "154" not in text
    mbpp = Problem(id="m", prompt="Double it.", entry_point="double", tests=(TestCase("shown", "assert double(1) == 2", form="code"),))
    assert "assert double(1) == 2" in chat(mbpp)[-1]["content"]


def test_parquet_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    export_problems(PROBLEMS, "verl", tmp_path / "train.parquet")
    table = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert table[0] == export_row(PROBLEMS[0], "verl")
    monkeypatch.setattr("rlaif.problems.export.importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(EnvironmentFailure, match=r"export to \.jsonl"):
        export_problems(PROBLEMS, "verl", tmp_path / "b.parquet")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["train.parquet"], "nothing half-written stays"


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No export format 'csv'"):
        export_problems(PROBLEMS, "csv", tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match=r"must end in .jsonl or .parquet"):
        export_problems(PROBLEMS, "trl", tmp_path / "a.txt")
    with pytest.raises(UsageError, match="Nothing to export"):
        export_problems([], "trl", tmp_path / "a.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Cannot write"):
        export_problems(PROBLEMS, "trl", tmp_path / "file" / "a.jsonl")
    for text in ("{", "[]", '{"id": 1}', None):
        with pytest.raises(ProblemFileError):
            unseal(text)
