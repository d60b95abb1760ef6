"""What a run trains on: which problems the warm start is taught, and which are left for RL to practise on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rlaif.config import TrainConfig
from rlaif.problems import load_problems
from rlaif.runs import RunDir
from rlaif.train import loop, warm_start
from rlaif.train.setup import Hooks, build_curriculum, choose_problems
from rlaif.types import Problem, TestCase
from tests.train.conftest import tiny_config, tiny_policy
from tests.train.test_whole_run import whole_run

MINE = Problem("mine", "Add one to n.", (TestCase("graded", "up(1)", "2"),), "up", reference="def up(n):\n    return n + 1\n", source="user")


def ids(problems) -> list[str]:
    return [problem.id for problem in problems]


def test_a_share_is_taught_and_the_others_are_practised():
    everything = set(ids(load_problems("builtin/intro", split="train")))
    sets = choose_problems(TrainConfig(sft_steps=4, sft_share=0.6), Hooks(problems=[MINE]))
    taught, practised = set(ids(sets.taught)), set(ids(sets.train))
    assert taught | practised == everything | {"mine"} and not taught & practised
    assert len(taught) == round(0.6 * len(everything)) and "mine" in practised
    assert ids(choose_problems(TrainConfig(sft_steps=4, sft_share=0.6, seed=5), Hooks()).taught) == ids(sets.taught), "a resumed run needs the same"
    assert sets.in_words().startswith(f"{len(taught)} problems by the warm start, {len(practised)} others (1 of your own)")
    even = choose_problems(TrainConfig(sft_steps=4, sft_share=0.5), Hooks())
    assert len(even.taught) == len(even.train) and "by the warm start" in even.in_words(), "halves are not all and all"
    other = set(ids(choose_problems(TrainConfig(sft_steps=4, sft_share=0.3), Hooks()).taught))
    assert other < taught, "a smaller share is a part of a larger one"


def test_without_a_share_all_are_both():
    sets = choose_problems(TrainConfig(sft_steps=4), Hooks(problems=[MINE]))
    assert ids(sets.taught) == ids(sets.train) and "mine" in ids(sets.taught)
    assert not choose_problems(TrainConfig(sft_share=0.6), Hooks()).taught, "no steps, no division"
    assert len(choose_problems(TrainConfig(sft_share=0.6), Hooks()).train) == len(sets.train) - 1


def test_practice_is_another_set_and_gives_nothing_away():
    config = TrainConfig(sft_steps=4, practice_problems="generated/intro")
    sets = choose_problems(config, Hooks(problems=[MINE]))
    assert ids(sets.taught) == ids(load_problems("builtin/intro", split="train"))
    assert ids(sets.train) == ["mine", *ids(load_problems("generated/intro", split="train"))]
    assert sets.in_words() == f"{len(sets.taught)} problems by the warm start, {len(sets.train)} others (1 of your own) by RL"
    telling = {pair.first for pair in sets.overlap.pairs}
    assert telling and telling <= set(ids(sets.train)), "some of the generated ones are as the held-out ones"
    assert "--drop_overlap leaves those training problems out." in sets.overlap_lines(config)
    clean = choose_problems(config.model_copy(update={"drop_overlap": True}), Hooks())
    assert not telling & set(ids(clean.train)) and clean.dropped == len(telling) and ids(clean.taught) == ids(sets.taught)


def test_practice_needs_a_warm_start_and_no_share():
    with pytest.raises(ValueError, match="after a warm start"):
        TrainConfig(practice_problems="generated/intro")
    with pytest.raises(ValueError, match="exclude each other"):
        TrainConfig(practice_problems="generated/intro", sft_steps=4, sft_share=0.5)


def test_a_run_teaches_one_part_and_samples_the_other(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [
        {
            "id": f"p{i}",
            "prompt": f"Add {i} to a number",
            "split": "train" if i else "test",
            "solution": f"def add_{i}(n):\n    return n + {i}\n",
            "tests": [{"input": f"add_{i}({n})", "expected": str(n + i)} for n in range(5)],
        }
        for i in range(7)
    ]
    path = tmp_path / "six.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    taught: list[str] = []
    teach = loop.warm_start
    monkeypatch.setattr(loop, "warm_start", lambda policy, problems, *rest: taught.extend(ids(problems)) or teach(policy, problems, *rest))
    whole_run(tiny_llama, path, tmp_path / "run", sft_steps=1, sft_share=0.5, episodes=3, eval_samples=1)
    practised = {row["problem_id"] for row in RunDir.open(tmp_path / "run").iter_rollouts()}
    assert len(taught) == 3 and len(practised) == 3 and not set(taught) & practised


def test_pass_rates_of_the_untrained_model_count_for_less_after_a_warm_start():
    problems = load_problems("builtin/intro", split="train")
    fresh, warm = (build_curriculum(problems, TrainConfig(sft_steps=steps)).weights() for steps in (0, 4))
    assert fresh.min() < warm.min() and fresh.max() / fresh.min() > 2 * warm.max() / warm.min()


def test_longer_micro_batches_only_where_prompts_leave_no_graph(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    problems = load_problems("builtin/intro", split="train")[:3]
    asked: list[int] = []
    compute = warm_start.action_logps
    monkeypatch.setattr(warm_start, "action_logps", lambda *args, **options: asked.append(options["micro_batch_tokens"]) or compute(*args, **options))

    def tokens(**changes) -> int:
        config = tiny_config(sft_steps=1, micro_batch_tokens=64, max_new_tokens=64, **changes)
        warm_start.warm_start(tiny_policy(tiny_llama), problems, config, torch.Generator().manual_seed(0), lambda step, loss: None)
        return asked[-1]

    assert 64 < tokens() <= 4 * 64 and tokens(sft_prompt_gradient=True) == 64
    monkeypatch.setattr(warm_start, "FLAT_MODELS", frozenset())  # attention that cannot be replaced keeps the prompts' graph
    assert tokens() == 64
