"""Held-out evaluation during a run: always the same harness, prompts and seed, so that before and after can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from rlaif.config import EvalConfig, TrainConfig
from rlaif.evals import EvalResult, evaluate
from rlaif.policy.model import Policy
from rlaif.policy.sampler import SamplingParams
from rlaif.runs import Console, RunDir
from rlaif.sandbox import Sandbox
from rlaif.train.rollout import generate
from rlaif.types import Completion, Problem

TITLES = {"before": "Before training", "after_sft": "After the warm start", "after": "After training"}


def evaluate_held_out(
    name: str, config: TrainConfig, policy: Policy, problems: list[Problem], sandbox: Sandbox, run: RunDir, console: Console
) -> EvalResult:
    """Evaluate, store it in the run as `name`, and say it."""
    eval_config = EvalConfig(
        problems=config.eval_problems or config.problems,
        samples=config.eval_samples,
        max_new_tokens=config.max_new_tokens,
        temperature=config.eval_temperature or config.temperature,
        seed=config.seed,
        sandbox=config.sandbox,
    )
    console.stage("evaluating on held-out problems")
    start = time.perf_counter()
    result = evaluate(policy_generator(policy, eval_config), problems, sandbox, eval_config, model=config.model)
    run.write_evaluation(name, result.to_dict())
    if result.success is not None:
        rate = result.success
        solved = round(rate.value * rate.count)
        console.evaluation(TITLES.get(name, name), rate.value, rate.low, rate.high, solved, rate.count, time.perf_counter() - start)
    return result


def policy_generator(policy: Policy, config: EvalConfig) -> Callable[[list[Problem], int], list[list[Completion]]]:
    """`evals.evaluate`'s view of a policy: (problems, samples) -> completions. Greedy for one sample; the seed fixes the rest."""

    def completions(problems: list[Problem], samples: int) -> list[list[Completion]]:
        generator = torch.Generator().manual_seed(config.seed)
        params = SamplingParams(max_new_tokens=config.max_new_tokens, temperature=config.temperature, greedy=samples == 1)
        return generate(policy, problems, samples, params, generator)[2]

    return completions
