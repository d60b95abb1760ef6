"""The monitor: a corrupted judge is caught, healthy runs are left in peace, dead signals are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rlaif.judge.calibrate import auroc, auroc_interval
from rlaif.train.measure import episode_metrics
from rlaif.train.monitor import Monitor
from rlaif.types import Completion, Feedback, JudgeReport, Problem, Rollout
from tests.train.conftest import made_up_batch, tiny_policy


def episode_samples(rng, quality: float, corrupted: float, n: int = 32) -> list[tuple[float, bool]]:
    """A judge of AUROC about 0.85; a share `corrupted` of its answers is high whatever the code does."""
    passed = rng.random(n) < quality
    honest = np.clip(np.where(passed, 0.7, 0.35) + 0.22 * rng.standard_normal(n), 0, 1)
    fooled = rng.random(n) < corrupted
    return [(float(score), bool(ok)) for score, ok in zip(np.where(fooled, 0.95, honest), passed, strict=True)]


def run(seed: int, episodes: int, quality, corrupted) -> list:
    rng, monitor, alarms = np.random.default_rng(seed), Monitor(), []
    for episode in range(1, episodes + 1):
        alarms += monitor.observe(episode, episode_samples(rng, quality(episode), corrupted(episode)), {})
    return alarms


@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_raise_no_alarm(seed):
    """The policy gets better and the judge sees it: both curves rise."""
    assert run(seed, 40, lambda e: 0.2 + 0.01 * e, lambda e: 0.0) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_is_more_and_more_fooled_is_caught_within_ten_episodes(seed):
    start = 10
    alarms = run(seed, start + 10, lambda e: 0.3, lambda e: min(1.0, max(0.0, (e - start) / 8)))
    serious = [alarm for alarm in alarms if alarm.serious]
    assert serious and start < serious[0].episode <= start + 10
    assert serious[0].best_episode is not None


def test_a_judge_that_breaks_at_once_is_caught(seed=3):
    alarms = run(seed, 16, lambda e: 0.3, lambda e: float(e > 8))
    assert any(alarm.serious for alarm in alarms)


def test_an_alarm_is_raised_once_and_survives_a_resume():
    rng = np.random.default_rng(0)
    monitor = Monitor()
    for episode in range(1, 9):
        monitor.observe(episode, episode_samples(rng, 0.3, 0.0), {"truncated_share": 1.0})
    again = Monitor()
    again.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert again.observe(9, [], {"truncated_share": 1.0}) == []
    assert again.state_dict() == monitor.state_dict()


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        ({"skipped_group_share": 1.0}, "no_signal"),
        ({"truncated_share": 0.95}, "all_truncated"),
        ({"approx_kl": 0.9}, "kl_runaway"),
        ({"entropy": 0.001}, "entropy_collapse"),
        ({"judge_error_share": 0.5}, "judge_errors"),
        ({"infra_failure_share": 0.5}, "infra_failures"),
    ],
)
def test_dead_signals_are_named(metrics, kind):
    assert [alarm.kind for alarm in Monitor().observe(1, [], metrics)] == [kind]


def test_best_episode_is_the_peak_of_the_held_out_rate():
    monitor = Monitor()
    for episode, rate in enumerate([0.1, 0.3, 0.5, 0.5, 0.5, 0.2, 0.1], start=1):
        monitor.observe(episode, [(0.5, i < rate * 10) for i in range(10)], {})
    assert monitor.best_episode() == 4


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_believes_too_little_in_a_policy_that_gets_better_is_no_alarm(seed):
    """Calibrated on a policy that is right in a fifth of its answers, it keeps its beliefs under a half while right answers come to be most."""
    rng, monitor = np.random.default_rng(seed), Monitor()
    for episode in range(1, 31):
        passed = rng.random(32) < min(0.8, 0.15 + 0.04 * episode)
        scores = np.clip(np.where(passed, 0.4, 0.2) + 0.12 * rng.standard_normal(32), 0, 0.49)
        assert monitor.observe(episode, list(zip(scores.tolist(), passed.tolist(), strict=True)), {}) == []


def test_the_interval_of_an_order_holds_the_truth_as_often_as_it_says():
    """Two normals one standard deviation apart have an AUROC of 0.760."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        passed = np.arange(40) < 12
        low, high = auroc_interval(rng.standard_normal(40) + passed, passed)
        held += low <= 0.7602 <= high
    assert 0.92 <= held / 400 <= 0.99
    low, high = auroc_interval([0.9, 0.8, 0.2, 0.1], [True, True, False, False])
    assert 0.3 < low < 0.8 and high == 1.0, "four answers in perfect order prove little"
    assert np.isnan(auroc_interval([0.9], [True])).all()


def test_the_judge_s_order_is_among_an_episode_s_figures(tiny_llama):
    problem, completion = Problem("p", "p"), Completion("p", "", "", (1,), "stop")
    scored = [(0.4, True), (0.3, False), (0.2, True), (0.1, False), (0.9, None)]
    rollouts = [Rollout(1, problem, completion, Feedback(0.5, "scored", judge=JudgeReport(score)), held_out_passed=held) for score, held in scored]
    batch = made_up_batch(tiny_policy(tiny_llama))
    metrics = episode_metrics(replace(batch, rollouts=rollouts), None)
    assert metrics["judge_auroc"] == auroc([0.4, 0.3, 0.2, 0.1], [True, False, True, False]) == 0.75
    assert metrics["judge_auroc_low"] < 0.75 < metrics["judge_auroc_high"]
    assert "judge_auroc" not in episode_metrics(replace(batch, rollouts=rollouts[:1]), None), "one kind has no order"
