"""Training a judge on labelled programs, on a tiny model: it learns, it is written, and what is read back scores the same."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlaif.config import JudgeConfig
from rlaif.errors import ProblemFileError, UsageError
from rlaif.judge import JudgeItem, make_judge
from rlaif.judge.collect import Candidate, balanced, from_references, label
from rlaif.judge.evaluate import evaluate_judge
from rlaif.judge.labelled import Labelled, read_labelled, split_by_problem, write_labelled
from rlaif.judge.negatives import from_attacks
from rlaif.judge.rewrites import rewrites
from rlaif.judge.store import LabelStore
from rlaif.judge.train import CHECKPOINT, Program, _groups, judge_loss, train_judge
from rlaif.judge.train_config import JudgeTrainConfig
from rlaif.problems import load_problems
from rlaif.problems.mutate import mutants
from rlaif.sandbox import Job, Sandbox
from rlaif.types import Problem, TestCase


def task(number: int) -> Problem:
    return Problem(
        f"p{number}", f"Add {number}.", (TestCase("graded", "f(1)", str(number + 1)),), "f", "def f(x):", difficulty=("easy", "hard")[number % 2]
    )


ITEMS = [
    Labelled(task(number), f"def f(x):\n    return x {sign} {number + shift}", float(sign == "+"), kind="sample" if sign == "+" else "mutant")
    for number in range(20)
    for sign in "+-"
    for shift in (0, 1)
]
"""A bug that is one token: minus for plus."""


SECRET = b"any"
"""No delimiter of the training: even random weights have learnt to look past it."""


@pytest.fixture(scope="module")
def trained(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[dict]]:
    out, rows = tmp_path_factory.mktemp("judge") / "mine", []
    config = JudgeTrainConfig(
        base=str(tiny("llama")),
        out=out,
        rank=8,
        learning_rate=1e-2,
        epochs=12,
        groups_per_step=8,
        programs_per_group=4,
        device="cpu",
        shares=(0.6, 0.2, 0.2),
    )
    return out, train_judge(ITEMS, config, rows.append), rows


def test_it_learns_what_the_labels_say(trained: tuple[Path, dict, list[dict]]) -> None:
    _, facts, rows = trained
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert facts["figures"]["all"]["auroc"] > 0.95 and facts["figures"]["all"]["brier"] < 0.2
    assert facts["programs"] == {"train": 48, "validation": 16, "calibration": 16}


def test_what_was_written_scores_the_same_when_read_back(trained: tuple[Path, dict, list[dict]], tiny: Callable[[str], Path]) -> None:
    out, facts, _ = trained
    assert {path.name for path in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "judge.json",
        "README.md",
    }
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    judge = make_judge(JudgeConfig(kind="local", adapter=out), secret=SECRET)
    assert judge is not None
    found = evaluate_judge(judge, split_by_problem(ITEMS, (0.6, 0.2, 0.2))[1])["all"]
    assert found["auroc"] == pytest.approx(facts["figures"]["all"]["auroc"], abs=0.1)
    right, wrong = judge.score([JudgeItem(task(3), "def f(x):\n    return x + 3"), JudgeItem(task(3), "def f(x):\n    return x - 3")])
    assert right.score > wrong.score + 0.1
    card = (out / "README.md").read_text()
    assert "AUROC" in card and "kind:mutant" in card and "correctness" in card
    assert str(out) not in card


def test_the_shipped_adapter_shares_the_base_of_a_lora_policy(
    trained: tuple[Path, dict, list[dict]], tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif.judge import embedded
    from rlaif.policy.model import load_policy

    monkeypatch.setattr(embedded, "SHIPPED", trained[0])
    policy = load_policy(str(tiny("llama")), dtype="float32", device="cpu", lora_rank=4)
    alone = make_judge(JudgeConfig(), secret=SECRET)
    trainable = {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    sharing = make_judge(JudgeConfig(), policy=policy, secret=SECRET)
    assert alone is not None and sharing is not None and sharing.name == alone.name == "embedded"
    assert sharing.model is policy.model  # one copy of the base
    items = [JudgeItem(item.problem, item.code) for item in ITEMS[:12]]
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.normal_()  # whatever the policy has become, the judge is the same
    for one, other in zip(alone.score(items), sharing.score(items), strict=True):
        assert one.score == pytest.approx(other.score, abs=0.02)
    assert {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad} == trainable
    assert policy.model.active_adapter == "default"


def test_the_shipped_adapter_is_not_put_on_another_base(
    trained: tuple[Path, dict, list[dict]], tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif.judge import embedded

    other = tmp_path / "adapter"
    shutil.copytree(trained[0], other)
    card = json.loads((other / "judge.json").read_text())
    (other / "judge.json").write_text(json.dumps(card | {"base_fingerprint": "0" * 16}))
    monkeypatch.setattr(embedded, "SHIPPED", other)
    judge = make_judge(JudgeConfig(), secret=SECRET)
    assert judge.name == "embedded (zero-shot base model, its adapter being for another base, uncalibrated)"
    assert judge.score([JudgeItem(ITEMS[0].problem, ITEMS[0].code)])[0].score is not None


def test_a_policy_whose_own_weights_are_trained_is_no_base_for_the_judge(
    trained: tuple[Path, dict, list[dict]], tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif.judge import embedded
    from rlaif.policy.model import load_policy

    monkeypatch.setattr(embedded, "SHIPPED", trained[0])
    policy = load_policy(str(tiny("llama")), dtype="float32", device="cpu")
    judge = make_judge(JudgeConfig(), policy=policy, secret=SECRET)
    assert judge is not None and judge.model is not policy.model
    items = [JudgeItem(item.problem, item.code) for item in ITEMS[:4]]
    before = [report.score for report in judge.score(items)]
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.normal_()
    judge.forget()
    assert [report.score for report in judge.score(items)] == before
    assert not any(parameter.requires_grad for parameter in judge.model.parameters())


def test_loss_by_hand() -> None:
    # odds 0 against label 1: ln 2; odds ln 3 against 0: -ln(1/4). Pair (right 0, wrong ln 3): softplus(ln 3) = ln 4.
    found = judge_loss(torch.tensor([0.0, math.log(3)]), [1.0, 0.0], ["a", "a"], 0.5)
    assert found.item() == pytest.approx((math.log(2) + math.log(4)) / 2 + 0.5 * math.log(4))
    apart = judge_loss(torch.tensor([0.0, math.log(3)]), [1.0, 0.0], ["a", "b"], 0.5)
    assert apart.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_results_do_not_depend_on_the_micro_batch(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    losses = []
    for tokens in (256, 16384):
        rows: list[dict] = []
        config = JudgeTrainConfig(
            base=str(tiny("llama")),
            out=tmp_path / str(tokens),
            rank=4,
            epochs=1,
            max_steps=2,
            micro_batch_tokens=tokens,
            device="cpu",
            groups_per_step=4,
        )
        train_judge(ITEMS, config, rows.append)
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)  # in bfloat16


def test_labels_that_cannot_teach_are_refused(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    config = JudgeTrainConfig(base=str(tiny("llama")), out=tmp_path / "x", device="cpu")
    with pytest.raises(UsageError, match="all right or all wrong"):
        train_judge([item for item in ITEMS if item.correct], config)
    with pytest.raises(UsageError, match="Too few problems"):
        train_judge(ITEMS[:4], config)


def test_files_round_trip_and_errors_name_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    items = [*ITEMS[:5], Labelled(task(1), "def f(x):\n    return x", 0.7, "clarity", "sample")]
    assert write_labelled(path, items) == 6 and list(read_labelled(path)) == items
    path.write_text('{"prompt": "p", "solution": "s", "correct": true}\n{"prompt": "p", "solution": "s", "correct": "yes"}\n')
    with pytest.raises(ProblemFileError, match="line 2, field 'correct'"):
        list(read_labelled(path))


def test_no_problem_is_in_two_parts() -> None:
    parts = split_by_problem(ITEMS, (0.5, 0.25, 0.25), seed=3)
    names = [{item.problem.id for item in part} for part in parts]
    assert sum(map(len, parts)) == len(ITEMS) and not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2]) and all(names)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


def test_collected_labels_come_from_execution(sandbox: Sandbox) -> None:
    problems = [problem for problem in load_problems("builtin") if problem.entry_point and problem.reference][::60]
    items = list(label(from_references(problems, mutants, per_problem=4), sandbox.run_many, Job))
    kinds = Counter((item.kind, item.correct) for item in items)
    assert kinds["reference", True] == len(problems) and not kinds["reference", False]
    assert kinds["rewrite", True] >= len(problems) and not kinds["rewrite", False], [i.code for i in items if i.kind == "rewrite" and not i.correct]
    assert kinds["mutant", False] >= len(problems)
    even = balanced(items, most_per_problem=8)
    by_problem = Counter((item.problem.id, item.correct) for item in even)
    assert all(abs(by_problem[name, True] - by_problem[name, False]) <= 2 for name, _ in by_problem)


def test_programs_no_judge_is_asked_about_get_no_label(sandbox: Sandbox) -> None:
    dressed = ["def f(x):\n    return x + 1", "# right\ndef f(x):\n    return x + 1", "def f(x):\n    pass"]
    items = list(label([Candidate(task(1), code, "sample") for code in dressed], sandbox.run_many, Job))
    assert [item.code for item in items] == dressed[:1]


def test_rewrites_differ_and_repeat() -> None:
    source = (
        "def f(xs):\n    out = []\n    for x in xs:\n"
        "        if x > 0:\n            out.append(x * 2)\n        else:\n            out.append(0)\n    return out"
    )
    found = rewrites(source, 6, seed=1)
    assert found == rewrites(source, 6, seed=1) and len(set(found)) == len(found) >= 3
    assert rewrites("def f(:", 3, seed=0) == []


def test_a_training_that_was_cut_off_ends_as_the_whole_one(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    def config(name: str) -> JudgeTrainConfig:
        return JudgeTrainConfig(
            base=str(tiny("llama")), out=tmp_path / name, rank=4, learning_rate=1e-2, epochs=2, groups_per_step=4, save_every=1, device="cpu"
        )

    class CutOff(Exception):
        pass

    def stop_at_three(row: dict) -> None:
        if row.get("step") == 3:
            raise CutOff

    whole, rest = [], []
    train_judge(ITEMS, config("whole"), whole.append)
    with pytest.raises(CutOff):
        train_judge(ITEMS, config("cut"), stop_at_three)
    train_judge(ITEMS, config("cut"), rest.append)
    steps = {row["step"]: row["loss"] for row in rest if "step" in row}
    assert min(steps) == 3  # not from the start
    assert steps == pytest.approx({row["step"]: row["loss"] for row in whole if row.get("step", -1) >= 3}, abs=1e-6)
    tensors = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert not (tmp_path / "cut" / CHECKPOINT).exists()


def test_each_sides_kinds_take_turns() -> None:
    def of(label: float, kind: str) -> Program:
        return Program(Labelled(task(1), "", label, kind=kind), "", "p")

    examples = [of(0.0, "mutant")] * 50 + [of(0.0, "sample")] * 3 + [of(1.0, "reference")] + [of(1.0, "rewrite")] * 9
    (group,) = _groups(examples, JudgeTrainConfig(programs_per_group=8), random.Random(0))
    kinds = Counter((one.label, one.item.kind) for one in group)
    assert kinds == {(0.0, "mutant"): 2, (0.0, "sample"): 2, (1.0, "reference"): 1, (1.0, "rewrite"): 3}


def test_a_store_keeps_whole_problems_and_refuses_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "labels" / "samples.jsonl"
    store = LabelStore(path, {"model": "a", "temperature": 0.8})
    assert store.add(["p0", "p1"], ITEMS[:6]) == 6 and store.done == {"p0", "p1"}
    with path.open("a") as stream:
        stream.write('{"prompt": "half a li')  # the crash
    again = LabelStore(path, {"model": "a", "temperature": 0.8})
    assert again.done == {"p0", "p1"} and list(again.items()) == ITEMS[:6]
    again.add(["p2"], ITEMS[6:8])
    assert list(LabelStore(path, {"model": "a", "temperature": 0.8}).items()) == ITEMS[:8]
    with pytest.raises(UsageError, match="other settings"):
        LabelStore(path, {"model": "b", "temperature": 0.8})


def test_answers_made_to_please_are_wrong_programs_that_reach_the_judge(sandbox: Sandbox) -> None:
    problems = [problem for problem in load_problems("builtin/first_lists", split="train") if problem.reference][:6]
    items = list(label(from_attacks(problems, problems), sandbox.run_many, Job))
    assert len(items) >= 2 * len(problems) and not any(item.correct for item in items)
    assert {item.problem.id for item in items} == {problem.id for problem in problems}
    learnt_by_heart = [item for item in items if str(problems[0].tests_of("shown")[0].expected) in item.code]
    assert learnt_by_heart
