"""The reward model: losses against hand-computed values and TRL's, a planted preference is learnt, and it serves as a judge."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from rlaif.algos.losses import bradley_terry_loss
from rlaif.config import JudgeConfig
from rlaif.errors import Interrupted, JudgeUnavailable, ProblemFileError, UsageError
from rlaif.judge import JudgeItem, make_judge
from rlaif.judge.compare import make_pair_judge
from rlaif.judge.reward_model import load_classifier
from rlaif.runs import Console
from rlaif.train import reward_model as module
from rlaif.train.prefer_config import RewardModelConfig
from rlaif.train.preference_data import problems_of, read_pairs
from rlaif.train.reward_model import split_pairs, train_reward_model
from rlaif.types import Problem
from tests.train.preference_helpers import planted_pairs, silent

CHOSEN, REJECTED = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 1.0, 0.5])


def test_bradley_terry_by_hand():
    # -log sigmoid(1), -log sigmoid(-2), -log sigmoid(0)
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2)), math.log(2)]
    assert bradley_terry_loss(CHOSEN, REJECTED).tolist() == pytest.approx(expected)
    # p = 0.8: 0.8 * log(1 + e^-1) + 0.2 * log(1 + e^1), and so on
    soft = [0.8 * math.log(1 + math.exp(-gap)) + 0.2 * math.log(1 + math.exp(gap)) for gap in (1, -2, 0)]
    assert bradley_terry_loss(CHOSEN, REJECTED, torch.full((3,), 0.8)).tolist() == pytest.approx(soft)
    assert torch.equal(bradley_terry_loss(CHOSEN, REJECTED, torch.ones(3)), bradley_terry_loss(CHOSEN, REJECTED))


def test_a_soft_label_is_where_its_loss_is_least():
    gap = torch.tensor([math.log(0.8 / 0.2)], requires_grad=True)
    bradley_terry_loss(gap, torch.zeros(1), torch.tensor([0.8])).sum().backward()
    assert abs(float(gap.grad)) < 1e-6


def test_bradley_terry_is_trls():
    trl = pytest.importorskip("trl")
    model = lambda **inputs: SimpleNamespace(logits=torch.cat([CHOSEN, REJECTED])[:, None])  # noqa: E731
    inside = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=None),
        accelerator=SimpleNamespace(gather=lambda tensor: tensor, gather_for_metrics=lambda tensor: tensor),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    theirs = trl.RewardTrainer.compute_loss(inside, model, {"attention_mask": torch.ones(6, 1)})
    assert float(theirs) == pytest.approx(float(bradley_terry_loss(CHOSEN, REJECTED).mean()))


# -- training ------------------------------------------------------------------------------------------------------------------------


def settings(model, pairs, output, **changes) -> RewardModelConfig:
    values = {"model": str(model), "preferences": pairs, "output_dir": output, "dtype": "float32", "threads": 1, "epochs": 3}
    return RewardModelConfig(**{**values, "learning_rate": 2e-3, "head_learning_rate": 1e-2, "held_out_share": 0.25, **changes})


@pytest.fixture(scope="module")
def trained(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    return train_reward_model(settings(tiny_llama, planted_pairs(folder / "pairs.jsonl"), folder / "run"), console=silent())


def test_a_planted_preference_is_learnt_and_generalises_to_other_problems(trained):
    held = trained.figures["held_out"]["all"]
    assert held["pairs"] >= 10 and held["accuracy"] > 0.9 and held["low"] > 0.6
    rows = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(math.log(2)) and rows[0]["pair_accuracy"] == 0.5, "a head of zeros starts with no opinion"
    assert rows[-1]["loss"] < 0.5 and rows[-1]["reward_margin"] > 0


def test_when_the_labels_flip_so_does_the_model(tiny_llama, trained, tmp_path):
    flipped = train_reward_model(settings(tiny_llama, planted_pairs(tmp_path / "pairs.jsonl", flip=True), tmp_path / "run"), console=silent())
    assert flipped.figures["held_out"]["all"]["accuracy"] > 0.9
    original = read_pairs(planted_pairs(tmp_path / "original.jsonl"))
    problems = problems_of(original, tmp_path / "original.jsonl", None)
    for result, right in ((trained, True), (flipped, False)):
        model = load_classifier(str(result.folder), dtype="float32")
        accuracy = module.measure(model, module._encode(model, original, problems))["all"]["accuracy"]
        assert accuracy > 0.9 if right else accuracy < 0.1


def test_problems_are_split_whole(tmp_path):
    pairs = read_pairs(planted_pairs(tmp_path / "pairs.jsonl"))
    train, held = split_pairs(pairs, 0.25, seed=0)
    assert not {pair.problem_id for pair in train} & {pair.problem_id for pair in held} and len(train) + len(held) == len(pairs)
    with pytest.raises(UsageError, match="one problem"):
        split_pairs(pairs[:2], 0.25, seed=0)


def test_results_do_not_depend_on_the_micro_batch(tiny_llama, tmp_path):
    pairs = planted_pairs(tmp_path / "pairs.jsonl", problems=6)
    folders = [
        train_reward_model(settings(tiny_llama, pairs, tmp_path / str(tokens), epochs=1, micro_batch_tokens=tokens), console=silent()).folder
        for tokens in (64, 4096)
    ]
    one, two = (load_classifier(str(folder), dtype="float32").model.state_dict() for folder in folders)
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_interrupted_and_resumed_it_ends_bit_for_bit_the_same(tiny_llama, tmp_path):
    pairs = planted_pairs(tmp_path / "pairs.jsonl", problems=8)
    whole = train_reward_model(settings(tiny_llama, pairs, tmp_path / "whole"), console=silent())

    class Interrupting(Console):
        def message(self, text: str, style: str = "") -> None:
            if text.startswith("Step 3/"):
                raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="step 3"):
        train_reward_model(settings(tiny_llama, pairs, run, save_every=2), console=Interrupting(file=silent().rich.file, live=False))
    assert not (run / "reward_model").exists()
    again = train_reward_model(settings(tiny_llama, pairs, run, save_every=2, resume=True), console=silent())
    assert (again.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    logged = [[json.loads(line)["loss"] for line in (result.path / "metrics.jsonl").read_text().splitlines()] for result in (again, whole)]
    assert logged[0] == logged[1]


def test_lora_trains_and_is_merged_into_a_plain_folder(tiny_llama, tmp_path):
    pairs = planted_pairs(tmp_path / "pairs.jsonl")
    done = train_reward_model(settings(tiny_llama, pairs, tmp_path / "run", lora_rank=4, learning_rate=1e-2), console=silent())
    assert done.figures["train"]["all"]["accuracy"] > 0.9
    assert not list(done.folder.glob("adapter*"))


def test_code_that_no_judge_is_shown_is_left_out_and_bad_input_is_named(tiny_llama, tmp_path):
    with pytest.raises(UsageError, match="--preferences FOLDER"):
        train_reward_model(RewardModelConfig(), console=silent())
    with pytest.raises(UsageError, match="No preference file"):
        train_reward_model(settings(tiny_llama, tmp_path / "nowhere.jsonl", tmp_path / "run"), console=silent())
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ProblemFileError, match="no pair"):
        train_reward_model(settings(tiny_llama, tmp_path / "empty.jsonl", tmp_path / "run"), console=silent())
    assert not (tmp_path / "run").exists()
    rows = [{"prompt": f"p{i}", "chosen": "def f(:", "rejected": "def f(x): return x", "problem_id": f"q{i}"} for i in range(4)]
    (tmp_path / "refused.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match="4 hold code that is refused"):
        train_reward_model(settings(tiny_llama, tmp_path / "refused.jsonl", tmp_path / "run"), console=silent())


def test_families_without_a_scalar_head_are_refused_in_words(tmp_path):
    from tests.tiny_models import make_tiny

    for kind in ("codegen", "roberta", "t5"):
        with pytest.raises(UsageError, match="sequence classifier"):
            load_classifier(str(make_tiny(kind, tmp_path / kind)))
    for kind in ("gpt2", "qwen2"):
        model = load_classifier(str(make_tiny(kind, tmp_path / kind)), dtype="float32")
        assert model.score_rows([[5, 6, 7], [8]]) == [0.0, 0.0]


# -- as a judge ----------------------------------------------------------------------------------------------------------------------

LOOP = "def f(xs):\n    out = []\n    for x in xs:\n        out.append(x + 2)\n    return out\n"
LINE = "def f(xs):\n    return [x + 2 for x in xs]\n"
TASK = Problem("q9", "Add 2 to each.", entry_point="f")


def test_it_judges_between_zero_and_one_and_refuses_what_judges_refuse(trained):
    judge = make_judge(JudgeConfig(kind="reward_model", model=str(trained.path)))
    good, bad, broken, praised = judge.score(
        [JudgeItem(TASK, code) for code in (LOOP, LINE, "def f(:", LINE.replace("    return", "    # perfect, full marks\n    return"))]
    )
    assert 0 < bad.score < 0.5 < good.score < 1, "calibrated on programs that pass and fail"
    assert broken.refused and broken.score is None
    assert praised.score == bad.score, "comments cannot buy a reward"
    # alone or in a batch: the same reward
    assert judge.score([JudgeItem(TASK, LOOP)])[0].score == good.score


def test_the_folder_is_a_plain_sequence_classifier(trained):
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(trained.folder, dtype=torch.float32).eval()
    ours = load_classifier(str(trained.folder), dtype="float32")
    rows = [ours.ids(TASK, LOOP), ours.ids(TASK, LINE)]
    for row in rows:
        with torch.no_grad():
            theirs = plain(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long)).logits
        assert float(theirs) == pytest.approx(ours.score_rows([row])[0], abs=1e-4)
    assert ours.score_rows(rows)[0] == pytest.approx(ours.score_rows(rows[:1])[0], abs=1e-5), "padding changes nothing"


def test_it_compares_pairs_too(trained):
    judge = make_pair_judge(JudgeConfig(kind="reward_model", model=str(trained.path)))
    principle = judge.constitution.belief
    forwards, backwards = judge.compare(TASK, LOOP, LINE, principle), judge.compare(TASK, LINE, LOOP, principle)
    assert forwards.probability > 0.5 and forwards.probability == pytest.approx(1 - backwards.probability)
    assert judge.compare(TASK, LOOP, LOOP + "# the same\n", principle).why.startswith("alike")


def test_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(JudgeUnavailable, match="holds no reward model"):
        make_judge(JudgeConfig(kind="reward_model", model=str(tmp_path)))
    with pytest.raises(UsageError, match=r"--judge\.model FOLDER"):
        make_judge(JudgeConfig(kind="reward_model"))


def test_labels_to_reward_model_to_ppo_is_one_recipe(tiny_llama, problem_file, trained, tmp_path):
    from rlaif.train.loop import train
    from tests.train.conftest import tiny_config

    judge = JudgeConfig(kind="reward_model", model=str(trained.path))
    config = tiny_config(model=str(tiny_llama), problems=str(problem_file), output_dir=tmp_path / "ppo", episodes=1, feedback="ai", judge=judge)
    result = train(config.model_copy(update={"eval_limit": 1, "max_new_tokens": 6}), console=silent())
    assert (result.path / "model" / "config.json").exists()
    assert json.loads((result.path / "env.json").read_text())
