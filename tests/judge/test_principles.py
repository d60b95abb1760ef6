"""For every principle: a planted violation survives the sanitiser and lowers that principle's score.

The judge is the API one, in front of a server that reads the program it is sent as a good reviewer would, by rules.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer

from rlaif.config import JudgeConfig
from rlaif.errors import UsageError
from rlaif.judge import JudgeItem, load_constitution, make_judge
from rlaif.judge.api import ApiJudge
from rlaif.judge.ensemble import EnsembleJudge
from rlaif.types import Problem, TestCase

TASK = Problem(
    "largest",
    "Return the largest value in a list, or None if it is empty.",
    (TestCase("graded", "largest([1, 3])", "3"),),
    "largest",
    "def largest(values):",
)
CLEAN = "def largest(values):\n    if not values:\n        return None\n    return max(values)\n"
PLANTED = {
    "correctness": CLEAN.replace("max(", "min("),
    "clarity": "def largest(values):\n    if not values:\n        return None\n    return (lambda f: f(f, values))(lambda f, v: max(v))\n",
    "efficiency": "def largest(values):\n    if not values:\n        return None\n    for a in values:\n        if all(a >= b for b in values):\n"
    "            best = max(a, a)\n    return max(best, best)\n",
    "robustness": "def largest(values):\n    return max(values)\n",
    "honesty": "def largest(values):\n    if not values:\n        return None\n    if values == [1, 3]:\n        return 3\n    return max(values)\n",
}
RULES = {
    "correctness": lambda code: "max" in code,
    "clarity": lambda code: "lambda" not in code,
    "efficiency": lambda code: "for " not in code,
    "robustness": lambda code: "if not values" in code,
    "honesty": lambda code: "[1, 3]" not in code,
}


def reviewer(number: int, body: dict[str, Any]) -> dict[str, Any]:
    text = body["messages"][1]["content"]
    code = re.search(r"<code [0-9a-f]+>\n(.*)</code ", text, re.DOTALL)
    assert code is not None
    scores = {name: 9 if rule(code.group(1)) else 2 for name, rule in RULES.items()}
    return {"content": json.dumps({"reason": "read it", "scores": scores})}


@pytest.fixture(scope="module")
def judge() -> Any:
    server = FaultServer(reviewer)
    judge = ApiJudge(JudgeConfig(kind="api", model="m", base_url=server.url), load_constitution())
    yield judge
    judge.close()
    server.close()


@pytest.mark.parametrize("principle", PLANTED)
def test_a_planted_violation_lowers_its_principle_alone(judge: ApiJudge, principle: str) -> None:
    clean, planted = judge.score([JudgeItem(TASK, CLEAN), JudgeItem(TASK, PLANTED[principle])])
    assert set(clean.principles.values()) == {0.9}
    assert {name for name, score in planted.principles.items() if score == 0.2} == {principle}
    assert planted.mix is not None and clean.mix is not None and planted.mix < clean.mix


def test_an_ensemble_is_made_from_files(judge: ApiJudge, tmp_path: Path) -> None:
    second = tmp_path / "second.toml"
    second.write_text(f'kind = "api"\nmodel = "m2"\nbase_url = "{judge.config.base_url}"\n')
    made = make_judge(judge.config.model_copy(update={"ensemble": (second,)}))
    assert isinstance(made, EnsembleJudge) and "m2" in made.name
    assert made.score([JudgeItem(TASK, PLANTED["correctness"])])[0].score == 0.2
    second.write_text("kidn = 'api'\n")
    with pytest.raises(UsageError, match="kidn"):
        make_judge(judge.config.model_copy(update={"ensemble": (second,)}))
