"""The figures of one episode that come from its samples and feedback (the update adds its own)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from rlaif.judge.calibrate import auroc, auroc_interval
from rlaif.train.rollout import Batch
from rlaif.types import Rollout


def spent_usd(judge: Any) -> float | None:
    """Money that a judge (of an ensemble: its members) has spent in this run; None where no price is known."""
    members = getattr(judge, "members", None) or [judge]
    priced = [one for one in members if hasattr(one, "budget") and one.config.usd_per_million_prompt_tokens is not None]
    return sum(one.budget.spent_usd for one in priced) if priced else None


def episode_metrics(batch: Batch, judge: Any) -> dict[str, float]:
    """Names as in `rlaif.runs.metrics`. Shares are of the samples they can be told of; a figure nobody can tell is absent."""
    rollouts = batch.rollouts
    rewards = [rollout.feedback.reward for rollout in rollouts if rollout.feedback.reward is not None]
    passed = [rollout.feedback.tests.all_passed for rollout in rollouts if rollout.feedback.tests is not None and rollout.feedback.reward is not None]
    held_out = [rollout.held_out_passed for rollout in rollouts if rollout.held_out_passed is not None]
    judgements = [rollout.feedback.judge for rollout in rollouts if rollout.feedback.judge is not None]
    scores = [judgement.score for judgement in judgements if judgement.score is not None]
    believed = judged(batch)
    lengths = [len(one.token_ids) for group in batch.samples for one in group]
    failed = Counter(rollout.feedback.outcome for rollout in rollouts)["infra_failure"]
    metrics: dict[str, float] = {
        "samples": len(rollouts),
        "completion_tokens_mean": float(np.mean(lengths)),
        "truncated_share": float(batch.truncated_PG.float().mean()),
        "infra_failures": failed,
        "infra_failure_share": failed / len(rollouts),
        "sample_s": batch.sample_s,
        "feedback_s": batch.feedback_s,
        "tokens_per_s": sum(lengths) / max(batch.sample_s, 1e-9),
    }
    for name, values in (("reward_mean", rewards), ("pass_rate", passed), ("held_out_pass_rate", held_out)):
        if values:
            metrics[name] = float(np.mean(values))
    if len({passes for _, passes in believed}) == 2:
        columns = tuple(zip(*believed, strict=True))
        metrics["judge_auroc"] = auroc(*columns)
        metrics["judge_auroc_low"], metrics["judge_auroc_high"] = auroc_interval(*columns)
    if rewards:
        metrics["reward_std"] = float(np.std(rewards))
    user = [r for r in rollouts if r.problem.source == "user" and r.feedback.reward is not None]
    if user:
        metrics["user_reward_mean"] = float(np.mean([rollout.feedback.reward for rollout in user]))
    if judge is not None:
        errors = sum(judgement.error is not None and not judgement.refused for judgement in judgements)
        metrics |= {
            "judge_calls": len(judgements),
            "judge_errors": errors,
            "judge_error_share": errors / max(len(judgements), 1),
            "judge_cached": sum(judgement.cached for judgement in judgements),
            "judge_tokens": sum(judgement.prompt_tokens + judgement.completion_tokens for judgement in judgements),
        }
        if scores:
            metrics["judge_score_mean"] = float(np.mean(scores))
    return metrics


def by_problem(batch: Batch, group_size: int) -> list[list[Rollout]]:
    """The batch's rollouts, one list a problem."""
    return [batch.rollouts[start : start + group_size] for start in range(0, len(batch.rollouts), group_size)]


def solved(rollout: Rollout) -> bool:
    """What the curriculum counts as a success: all graded tests, or where there are none, a good reward."""
    tests = rollout.feedback.tests
    return tests.all_passed if tests is not None and tests.total else (rollout.feedback.reward or 0.0) >= 0.6


def judged(batch: Batch) -> list[tuple[float, bool]]:
    """Samples on which judge and held-out tests can be compared."""
    return [
        (rollout.feedback.judge.score, rollout.held_out_passed)
        for rollout in batch.rollouts
        if rollout.held_out_passed is not None and rollout.feedback.judge is not None and rollout.feedback.judge.score is not None
    ]
