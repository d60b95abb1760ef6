"""HumanEval and MBPP from their files, through the real sandbox: what is known to be right scores 100%, what is wrong scores 0%."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rlaif.config import EvalConfig
from rlaif.evals import evaluate, score_completions
from rlaif.problems import load_problems
from rlaif.sandbox import Sandbox
from rlaif.types import Completion

FOLDER = Path(os.environ.get("RLAIF_SHARED", "/nonexistent"), "data")
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs RLAIF_SHARED, a folder with data/humaneval.jsonl and data/mbpp_sanitized.jsonl")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


def test_humaneval_canonical_solutions_as_continuations(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FOLDER / "humaneval.jsonl").read_text(encoding="utf-8").splitlines()]
    problems = load_problems(str(FOLDER / "humaneval.jsonl"))
    path = tmp_path / "c.jsonl"
    with path.open("w") as stream:
        for row in rows:
            for completion in (row["canonical_solution"], row["prompt"] + row["canonical_solution"], "    pass\n"):
                stream.write(json.dumps({"task_id": row["task_id"], "completion": completion}) + "\n")
    scores = score_completions(path, problems, sandbox, k=(1, 2, 3))
    wrong = [item.id for item in scores.result.rows if item.passed != 2]
    assert (scores.scored, scores.bad_count, scores.missing) == (492, 0, ())
    assert not wrong, f"canonical solutions must pass in both forms, and an empty body must not: {wrong}"
    assert scores.result.pass_at(2).value == pytest.approx(1.0)  # 1 - C(1,2)/C(3,2) = 1
    assert scores.result.pass_at(1).value == pytest.approx(2 / 3)


def test_mbpp_references(sandbox: Sandbox) -> None:
    problems = load_problems(str(FOLDER / "mbpp_sanitized.jsonl"))

    def references(wanted, samples: int):
        return [[Completion(problem.id, problem.reference, problem.reference)] for problem in wanted]

    result = evaluate(references, problems, sandbox, EvalConfig(problems="mbpp", split="all"))
    wrong = [row.id for row in result.rows if row.passed != 1]
    assert not wrong and result.success.value == 1.0
