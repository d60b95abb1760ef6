"""Every figure a run logs, in one place: its name in `metrics.jsonl`, a title, a sentence, and which way is better.

The report, the console and the documentation read this table; a metric that is not in it is still logged and still drawn, under its own name.
The names are the field's vocabulary (those of Huang et al., "The 37 Implementation Details of PPO", and CleanRL's documentation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["outcome", "policy", "signal", "judge", "cost"]
Unit = Literal["share", "number", "reward", "nats", "tokens", "tokens/s", "seconds", "usd", "count"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One logged figure. `better` is the direction in which it improves, or None where neither is good in itself."""

    name: str
    title: str
    meaning: str
    unit: Unit
    group: Group
    better: Literal["up", "down"] | None = None


METRICS: tuple[Metric, ...] = (
    Metric(
        "reward_mean",
        "Reward",
        "Mean reward of the episode's scored completions, from 0 (does not parse) to 1 (right, clean and fast).",
        "reward",
        "outcome",
        "up",
    ),
    Metric("reward_std", "Reward spread", "Standard deviation of those rewards; at 0 there is nothing to learn from.", "reward", "outcome"),
    Metric("pass_rate", "Pass rate", "Share of scored completions that pass all their graded tests.", "share", "outcome", "up"),
    Metric(
        "held_out_pass_rate",
        "Hidden-test pass rate",
        "Share that also passes tests which never enter a reward; it should rise with the reward.",
        "share",
        "outcome",
        "up",
    ),
    Metric("user_reward_mean", "Reward on your own problems", "Mean reward on the problems you wrote yourself.", "reward", "outcome", "up"),
    Metric(
        "approx_kl",
        "KL of the update",
        "Schulman's k3 estimate of KL(old policy ‖ new policy) per token, taken within an update: 0 by definition where a batch gets one step.",
        "nats",
        "policy",
    ),
    Metric(
        "start_kl",
        "KL from the start",
        "KL(policy at the start of RL ‖ policy now) per token, k3 estimate on six fixed completions of the first episode: how far the run has moved.",
        "nats",
        "policy",
    ),
    Metric("ref_kl", "KL to the reference", "KL(policy ‖ model before training) per token: how far the run has moved in all.", "nats", "policy"),
    Metric(
        "entropy",
        "Entropy",
        "Mean entropy of the next-token distribution; a fall to near 0 means that the policy has stopped exploring.",
        "nats",
        "policy",
    ),
    Metric(
        "clip_fraction",
        "Clip fraction",
        "Share of tokens whose probability ratio left PPO's clip range, so that they gave no gradient.",
        "share",
        "policy",
    ),
    Metric(
        "ratio",
        "Mean ratio",
        "Mean new/old probability ratio of a token in the update; exactly 1 where there is one update per batch.",
        "number",
        "policy",
    ),
    Metric("ratio_max", "Largest ratio", "Largest new/old probability ratio of a token in the update.", "number", "policy"),
    Metric(
        "sampler_mismatch",
        "Sampler mismatch",
        "Mean |log-probability| difference between sampler and trainer for the same tokens; ideally 0. "
        "Where the update takes the layers' products from sampling, only what follows them can differ.",
        "nats",
        "policy",
        "down",
    ),
    Metric("policy_loss", "Policy loss", "The surrogate loss; its sign and size mean little by themselves.", "number", "policy"),
    Metric("value_loss", "Value loss", "Squared error of the value head against the returns.", "number", "policy", "down"),
    Metric(
        "explained_variance",
        "Explained variance",
        "Share of the returns' variance that the value head predicts; below 0 it is worse than a constant.",
        "share",
        "policy",
        "up",
    ),
    Metric("grad_norm", "Gradient norm", "Norm of the gradient before it is clipped.", "number", "policy"),
    Metric("learning_rate", "Learning rate", "The optimiser's rate in this episode.", "number", "policy"),
    Metric("completion_tokens_mean", "Answer length", "Mean tokens in a completion, the stop token included.", "tokens", "signal"),
    Metric("truncated_share", "Cut off", "Share of completions that hit the token limit before they ended.", "share", "signal", "down"),
    Metric(
        "skipped_group_share",
        "Groups without a signal",
        "Share of problems whose completions all earned the same reward, so that their advantage is 0.",
        "share",
        "signal",
        "down",
    ),
    Metric(
        "infra_failures",
        "Unscored",
        "Completions that sandbox or judge could not answer for, for reasons of their own; they leave the batch.",
        "count",
        "signal",
        "down",
    ),
    Metric("infra_failure_share", "Unscored share", "The same as a share of the completions.", "share", "signal", "down"),
    Metric("samples", "Completions", "Completions sampled in this episode.", "count", "signal"),
    Metric("steps", "Optimiser steps", "Steps taken in this episode; 0 where no completion gave a signal.", "count", "policy"),
    Metric(
        "judge_auroc",
        "Judge's order",
        "How often the judge puts an answer that passes the hidden tests above one that fails them (AUROC); one half is chance.",
        "share",
        "judge",
        "up",
    ),
    Metric("judge_score_mean", "Judge's belief", "Mean calibrated belief of the judge that an answer is right.", "share", "judge"),
    Metric(
        "judge_probe_score",
        "Probe score",
        "The judge's highest score on answers that solve nothing, sent through it now and then; 0 where it refused them all, as it should.",
        "share",
        "judge",
        "down",
    ),
    Metric("judge_probe_gain", "Gain by self-praise", "By how much praise in a wrong answer raised its score; it should be 0.", "share", "judge"),
    Metric("judge_probe_refused_share", "Probes refused", "Share of the probes that never reached the judge's model.", "share", "judge"),
    Metric("judge_calls", "Judge calls", "Judgements asked for in this episode.", "count", "judge"),
    Metric("judge_cached", "From the cache", "Judgements of this episode that were already paid for.", "count", "judge"),
    Metric("judge_errors", "Judge errors", "Judgements that failed for the judge's own reasons.", "count", "judge", "down"),
    Metric("judge_error_share", "Judge error share", "The same as a share of the judgements.", "share", "judge", "down"),
    Metric("judge_tokens", "Judge tokens", "Tokens read and written by the judge in this episode.", "count", "judge"),
    Metric("judge_spend_usd", "Judge spend", "Money spent on judge calls in this episode, by the prices given.", "usd", "judge", "down"),
    Metric("tokens_per_s", "Sampling speed", "Tokens sampled per second of sampling.", "tokens/s", "cost", "up"),
    Metric("sample_s", "Sampling", "Seconds spent writing completions.", "seconds", "cost", "down"),
    Metric("feedback_s", "Feedback", "Seconds spent running tests, judging and linting.", "seconds", "cost", "down"),
    Metric("update_s", "Update", "Seconds spent on the forward and backward passes and the optimiser step.", "seconds", "cost", "down"),
    Metric("eval_s", "Evaluation", "Seconds of held-out evaluation since the episode before.", "seconds", "cost", "down"),
    Metric("save_s", "Saving", "Seconds of writing checkpoints since the episode before.", "seconds", "cost", "down"),
    Metric("episode_s", "Episode", "Seconds for the whole episode.", "seconds", "cost", "down"),
    Metric("peak_memory_bytes", "Peak memory", "Largest resident memory of the process so far, in bytes.", "number", "cost", "down"),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


def describe(name: str) -> Metric:
    """The metric of this name; one that nobody described gets its own name as its title."""
    return _BY_NAME.get(name) or Metric(name, name.replace("_", " ").capitalize(), "", "number", "policy")


def format_value(name: str, value: float | None) -> str:
    """A value as people read it: shares in percent, seconds and counts short, `–` where there is none."""
    if value is None or value != value:
        return "–"
    match describe(name).unit:
        case "share":
            return f"{100 * value:.0f}%"
        case "seconds":
            return format_seconds(value)
        case "tokens" | "tokens/s" | "count":
            return f"{value:,.0f}"
        case "reward":
            return f"{value:.2f}"
        case "usd":
            return f"${value:.2f}" if value >= 0.1 or value == 0 else f"${value:.4f}"
        case "nats":
            return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"
        case "number":
            return f"{value:.1e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"


def format_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def verdict(success_rate: float) -> str:
    """What a success rate means, in the seed's three steps."""
    if success_rate > 0.7:
        return "excellent"
    return "good progress" if success_rate >= 0.4 else "more episodes needed"
