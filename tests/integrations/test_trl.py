"""TRL's own trainers with our reward, on a tiny model; what they get for a sample that could not be scored; and the keys they log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import UsageError
from rlaif.integrations import Scorer
from rlaif.integrations.trl import METRICS, CodeReward
from rlaif.problems.export import export_problems, export_row
from rlaif.types import Feedback, Problem
from tests.integrations.conftest import fenced
from tests.tiny_models import make_tiny


class SomeUnscored:
    """A scorer whose sandbox breaks on every second completion; the rest is worth more the longer it is."""

    def score(self, problems: list[Problem], codes: list[str]) -> list[Feedback]:
        return [
            Feedback(None, "infra_failure", reasons=("the sandbox broke",)) if place % 2 else Feedback(min(1.0, len(code) / 200), "scored")
            for place, code in enumerate(codes)
        ]


@pytest.fixture(scope="module")
def rows(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Any:
    import datasets

    folder = tmp_path_factory.mktemp("rows")
    export_problems(problems, "trl", folder / "train.jsonl")
    return datasets.load_dataset("json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(folder / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("tiny") / "llama")


def train(kind: str, model: Path, rows: Any, reward: Any, folder: Path) -> tuple[Any, dict[str, float]]:
    """One short run of one of TRL's trainers; the trainer and its last logged metrics."""
    import trl
    from transformers import AutoModelForCausalLM, AutoTokenizer

    common: dict[str, Any] = {"output_dir": str(folder), "max_steps": 2, "logging_steps": 1, "save_strategy": "no", "report_to": [], "seed": 0}
    common |= {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8, "learning_rate": 1e-2, "beta": 0.0}
    common |= {"use_cpu": True, "disable_tqdm": True, "log_completions": True}
    config, trainer_class = (trl.GRPOConfig, trl.GRPOTrainer) if kind == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=[reward],
        args=config(**common),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    return trainer, next(entry for entry in reversed(trainer.state.log_history) if "reward" in entry)


def moved(trainer: Any, model: Path) -> float:
    """How far the weights went."""
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(model).state_dict()
    return max(float((value - before[name]).abs().max()) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_real_run(kind: str, model: Path, rows: Any, scorer: Scorer, tmp_path: Path) -> None:
    """A random model writes no Python: every reward is that of a program that does not parse, and says so in TRL's own log."""
    trainer, logged = train(kind, model, rows, CodeReward(scorer=scorer), tmp_path)
    assert trainer.state.global_step == 2
    assert 0.0 <= logged["rewards/rlaif/mean"] <= 0.1
    assert set(METRICS) <= set(logged) and logged["rlaif/policy_failures"] == 1.0 and logged["rlaif/unscored"] == 0.0


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_the_reward_reaches_the_update_and_none_stays_out_of_it(kind: str, model: Path, rows: Any, tmp_path: Path) -> None:
    trainer, logged = train(kind, model, rows, CodeReward(scorer=SomeUnscored()), tmp_path)  # type: ignore[arg-type]
    rewards, advantages = trainer._logs["rewards"]["rlaif"], trainer._logs["advantages"]
    assert [math.isnan(reward) for reward in rewards] == [False, True] * (len(rewards) // 2)
    assert all(advantage == 0.0 for reward, advantage in zip(rewards, advantages, strict=True) if math.isnan(reward))
    assert any(advantage != 0.0 for advantage in advantages), "what was scored still trains"
    assert logged["rlaif/unscored"] == 0.5 and not math.isnan(logged["reward"])
    assert moved(trainer, model) > 1e-3


def test_rewards_in_order_with_none_for_what_nobody_could_say(problems: list[Problem], scorer: Scorer, broken: Scorer) -> None:
    texts = [fenced(problems[0].reference), fenced("def nothing(): pass"), fenced(problems[1].reference), "no code at all, sorry"]
    mine = [problems[0], problems[0], problems[1], problems[1]]
    sealed = [export_row(problem, "trl")["problem"] for problem in mine]
    for completions in (texts, [[{"role": "assistant", "content": text}] for text in texts]):
        logged: dict[str, Any] = {}
        found = CodeReward(scorer=scorer)(["?"] * 4, completions, None, problem=sealed, log_extra=logged.__setitem__, log_metric=logged.__setitem__)
        assert [reward is not None and reward >= 0.6 for reward in found] == [True, False, True, False]
        assert found[1] <= 0.1 and found[3] <= 0.1 and logged["rlaif/all_tests_passed"] == 0.5
        assert logged["outcome"] == ["scored", "policy_failure"] * 2
    assert CodeReward(scorer=broken)(["?"] * 4, texts, None, problem=sealed) == [None] * 4


def test_every_rank_logs_the_same_keys_whatever_its_batch(problems: list[Problem], scorer: Scorer, broken: Scorer) -> None:
    sealed = [export_row(problems[0], "trl")["problem"]]
    keys = []
    for used, text in ((scorer, fenced(problems[0].reference)), (scorer, "("), (broken, fenced("x = 1"))):
        logged: dict[str, Any] = {}
        CodeReward(scorer=used)(["?"], [text], None, problem=sealed, log_extra=logged.__setitem__, log_metric=logged.__setitem__)
        assert all(isinstance(logged[name], float) and not math.isnan(logged[name]) for name in METRICS)
        keys.append(list(logged))
    assert keys[0] == keys[1] == keys[2]


def test_a_data_set_of_another_making_is_refused_with_the_command(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match="problems export --format trl"):
        CodeReward(scorer=scorer)(["?"], ["x"], None, answer=["42"])
    with pytest.raises(UsageError, match="not JSON"):
        CodeReward(scorer=scorer)(["?"], ["x"], None, problem=[json.dumps({"a": 1})[:-1]])
