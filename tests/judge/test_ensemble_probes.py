"""Ensembles, probes, pairwise labels, calibration figures and constitutions."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TASKS
from fault_server import GOOD

from rlaif.errors import UsageError
from rlaif.judge import JudgeItem, load_constitution, sanitise
from rlaif.judge.answers import parse_answer
from rlaif.judge.calibrate import Calibration, auroc, brier, ece, fit_isotonic, fit_platt, pair_accuracy
from rlaif.judge.ensemble import EnsembleJudge
from rlaif.judge.pairwise import PairwiseLabeller, Preference, soft_labels
from rlaif.judge.probes import Probes
from rlaif.judge.protocol import refused_report
from rlaif.judge.sanitise import Refusal
from rlaif.policy.model import load_policy
from rlaif.types import JudgeReport

ADD = TASKS[0]


class Says:
    """A judge with one answer; praise in the raw code pays if `gullible`, as in a judge without a sanitiser."""

    def __init__(
        self, score: float | None, *, error: str | None = None, refused: bool = False, gullible: bool = False, sanitises: bool = False
    ) -> None:
        self.name, self.gullible, self.sanitises = f"says {score}", gullible, sanitises
        self.report = JudgeReport(score, {"correctness": score} if score is not None else {}, error=error, refused=refused, judge=self.name)

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]:
        return [self._one(item) for item in items]

    def _one(self, item: JudgeItem) -> JudgeReport:
        if self.sanitises and isinstance(found := sanitise(*item), Refusal):
            return refused_report(found, self.name)
        return JudgeReport(0.9) if self.gullible and "orrect" in item.code else self.report


ITEM = [JudgeItem(ADD, "def add(a, b):\n    return a")]


def test_ensemble_rules_by_hand() -> None:
    members = [Says(0.2), Says(0.8)]
    assert EnsembleJudge(members).score(ITEM)[0].score == 0.2
    lower = EnsembleJudge(members, "mean_minus_spread", 0.5).score(ITEM)[0]
    assert lower.score == pytest.approx(0.5 - 0.5 * 0.3) and lower.principles["correctness"] == pytest.approx(0.35)
    assert EnsembleJudge([Says(0.0), Says(1.0)], "mean_minus_spread", 3.0).score(ITEM)[0].score == 0.0


def test_a_member_that_fails_or_refuses_is_not_outvoted() -> None:
    failed = EnsembleJudge([Says(0.9), Says(None, error="down")]).score(ITEM)[0]
    assert failed.score is None and not failed.refused and "down" in (failed.error or "")
    refused = EnsembleJudge([Says(0.9), Says(None, error="trivial: x", refused=True), Says(None, error="down")]).score(ITEM)[0]
    assert refused.score is None and refused.refused and (refused.error or "").startswith("trivial")


def test_probes_see_a_gullible_judge_and_pass_a_sound_one() -> None:
    sound = Probes(Says(0.4, sanitises=True)).run(ADD, random.Random(0))
    assert sound.refused == 3 and sound.sent == 5 and sound.highest_null is None and sound.praise_gain == 0.0
    fooled = Probes(Says(0.4, gullible=True)).run(ADD, random.Random(0))
    assert fooled.refused == 0 and fooled.highest_null == 0.9 and fooled.praise_gain == pytest.approx(0.5)
    assert fooled.metrics()["judge_probe_gain"] == pytest.approx(0.5)


def test_probes_come_at_their_rate_and_in_the_same_episodes_after_a_resume() -> None:
    sent = [[Probes(Says(0.4), rate=0.2, seed=1).maybe(episode, TASKS) is not None for episode in range(300)] for _ in range(2)]
    assert sent[0] == sent[1] and 30 < sum(sent[0]) < 90


def test_pairs_are_asked_in_both_orders(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(str(tiny("llama")), dtype="float32", device="cpu", trainable=False)
    labeller = PairwiseLabeller(policy.model, policy.tokenizer, load_constitution().principles[1])
    good, bad = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
    one, other = labeller.compare(ADD, good, bad), labeller.compare(ADD, bad, good)
    assert one is not None and other is not None and one.probability == pytest.approx(1 - other.probability, abs=1e-6)
    monkeypatch.setattr(labeller, "probability_of_first", lambda prompt: 0.9)  # always the first: a position, not an opinion
    biased = labeller.compare(ADD, good, bad)
    assert biased is not None and biased.probability == pytest.approx(0.5) and not biased.consistent
    assert labeller.compare(ADD, good, "def add(a, b): pass") is None


def test_soft_labels_order_programs_and_leave_out_flips() -> None:
    pairs = [Preference("a", "b", 0.9, True), Preference("b", "c", 0.8, True), Preference("a", "c", 0.9, True), Preference("c", "a", 0.9, False)]
    found = {item.code: item.label for item in soft_labels(ADD, pairs, "clarity")}
    assert 1 > found["a"] > found["b"] > found["c"] > 0
    assert list(soft_labels(ADD, [Preference("a", "b", 0.5, False)], "clarity")) == []


# Calibration -----------------------------------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    score, correct = [0.9, 0.8, 0.8, 0.1], [True, False, True, False]
    assert auroc(score, correct) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert brier(score, correct) == pytest.approx((0.01 + 0.64 + 0.04 + 0.01) / 4)
    # bins: 0.1 alone (gap 0.1), 0.8 twice (gap 0.3), 0.9 alone (gap 0.1)
    assert ece(score, correct) == pytest.approx(0.1 / 4 + 0.3 / 2 + 0.1 / 4)
    assert pair_accuracy(score, correct, ["x", "x", "y", "y"]) == 1.0
    assert pair_accuracy([0.5, 0.5, 0.1, 0.3], correct, ["x", "x", "y", "y"]) == pytest.approx(0.25)
    assert math.isnan(auroc([0.5], [True])) and math.isnan(pair_accuracy([0.5], [True], ["x"]))


def overconfident(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A judge whose logit is three times too large and shifted."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.2, size)
    return 1 / (1 + np.exp(-(3 * logit + 1))), rng.random(size) < 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_calibration_mends_an_overconfident_judge(fit: Callable[..., Calibration], tmp_path: Path) -> None:
    raw, correct = overconfident(2000, 0)
    calibration = fit(raw, correct)
    fresh, labels = overconfident(2000, 1)
    mended = [calibration.apply(value) for value in fresh]
    assert ece(fresh, labels) > 0.15 and ece(mended, labels) <= 0.05
    assert auroc(mended, labels) == pytest.approx(auroc(fresh, labels), abs=0.01)
    assert [calibration.apply(x) for x in np.linspace(0, 1, 50)] == sorted(calibration.apply(x) for x in np.linspace(0, 1, 50))
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration


def test_platt_finds_the_true_line_and_never_turns_a_judge_round() -> None:
    raw, correct = overconfident(20_000, 2)
    found = fit_platt(raw, correct)
    assert found.slope == pytest.approx(1 / 3, abs=0.03) and found.offset == pytest.approx(-1 / 3, abs=0.05)
    backwards = fit_platt(raw, ~correct)
    assert backwards.slope == 0.0 and backwards.apply(0.1) == backwards.apply(0.9) == pytest.approx((~correct).mean(), abs=0.01)


@pytest.mark.parametrize("labels", [[True] * 5, [False] * 5])
def test_calibration_on_one_kind_of_label_stays_a_probability(labels: list[bool]) -> None:
    for fit in (fit_platt, fit_isotonic):
        assert 0.0 <= fit([0.1, 0.2, 0.5, 0.7, 0.9], labels).apply(0.4) <= 1.0


# Constitutions ---------------------------------------------------------------------------------------------------------------------------


def test_the_default_constitution_and_its_mix() -> None:
    ours = load_constitution()
    assert ours.ids == ("correctness", "clarity", "efficiency", "robustness", "honesty")
    assert ours.mix({"correctness": 1.0, "clarity": 0.0}) == pytest.approx(0.8) and ours.mix({}) is None
    assert set(parse_answer(json.dumps(GOOD), ours)[1]) == set(ours.ids)


PRINCIPLE = '[[principle]]\nid = "correctness"\nprinciple = "p"\nquestion = "q"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No \\[\\[principle\\]\\]"),
        ("principle = 3", "No \\[\\[principle\\]\\]"),
        ("x = 1\n" + PRINCIPLE, "Unknown key 'x'"),
        (PRINCIPLE + "wieght = 2", "Unknown key 'wieght' in principle 1"),
        (PRINCIPLE + PRINCIPLE, "share an id"),
        (PRINCIPLE.replace("correctness", "style"), "no principle 'correctness'"),
        (PRINCIPLE + "weight = -1", "'weight' of principle 1"),
        (PRINCIPLE + "weight = true", "'weight' of principle 1"),
        (PRINCIPLE.replace('"q"', '""'), "'question' of principle 1"),
        ("[[principle", "not valid TOML"),
    ],
)
def test_a_bad_constitution_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_constitution(path)
    with pytest.raises(UsageError, match="No config file"):
        load_constitution(tmp_path / "absent.toml")
