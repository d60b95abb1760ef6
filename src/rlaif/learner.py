"""What the learner's files (simple_dataset.py, reward_model.py, rlaif_trainer.py) lean on: hooks for a run, and a policy to play with."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rlaif.algos.recipes import recipe_for
from rlaif.config import EvalConfig, TrainConfig
from rlaif.errors import UsageError
from rlaif.evals import evaluate
from rlaif.policy.sampler import Sample, SamplingParams
from rlaif.problems.prompting import build_prompt, encode_prompt
from rlaif.sandbox import Sandbox
from rlaif.train.held_out import policy_generator
from rlaif.train.rollout import Batch, generate
from rlaif.train.setup import Hooks, build_policy
from rlaif.train.update import build_optimizer, update
from rlaif.types import Problem


def learner_hooks(dataset: Sequence[Problem], reward_model: type) -> Hooks:
    """The user's own problems of `dataset` and `_evaluate_code_quality` of `reward_model`, with its source's hash.

    The method is called on an instance made without the constructor's sandbox and judge: the run brings its own.
    """
    instance = reward_model.__new__(reward_model)
    source = inspect.getsource(reward_model._evaluate_code_quality)
    return Hooks(
        problems=[problem for problem in dataset if problem.source == "user"],
        quality=_checked(instance._evaluate_code_quality),
        quality_hash=hashlib.sha256(source.encode()).hexdigest(),
    )


def _checked(function: Callable[[str], float]) -> Callable[[str], float]:
    def quality(solution: str) -> float:
        value = float(function(solution))
        if not 0.0 <= value <= 1.0:
            raise UsageError(f"_evaluate_code_quality returned {value}", "it must lie between 0 and 1", "scale or clamp it in reward_model.py")
        return value

    return quality


class Learner:
    """A policy in memory with its optimiser: sample from it, update it with rewards of your own, evaluate and save it."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.recipe = recipe_for(config.algo, clip=config.clip, clip_high=config.clip_high)
        self.policy = build_policy(config, value_head=self.recipe.critic)
        self.optimizer = build_optimizer(self.policy, config)
        self.generator = torch.Generator().manual_seed(config.seed)

    def step(self, prompts: Sequence[str], responses: Sequence[str], rewards: Sequence[float]) -> dict[str, float]:
        """One update on responses scored elsewhere -> its metrics. Raises UsageError unless the three have one length, at least one.

        Each response is an action that ends with the end-of-text token. Responses to equal prompts form a group.
        """
        if not (len(prompts) == len(responses) == len(rewards) > 0):
            raise UsageError("step needs as many responses and rewards as prompts", f"got {len(prompts)}, {len(responses)} and {len(rewards)}")
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(prompt, []).append(place)
        if len({len(places) for places in groups.values()}) > 1:
            raise UsageError("Every prompt needs the same number of responses", "", "repeat each prompt equally often")
        samples = [[self._as_sample(responses[place]) for place in places] for places in groups.values()]
        reward_PG = torch.tensor([[float(rewards[place]) for place in places] for places in groups.values()])
        prompt_ids = [self._prompt_ids(prompt) for prompt in groups]
        batch = Batch(prompt_ids, samples, reward_PG, torch.ones_like(reward_PG, dtype=torch.bool), [], 0.0, 0.0)
        return update(self.policy, self.optimizer, batch, self.recipe, self.config, self.generator)

    def evaluate(self, dataset: Sequence[Problem]) -> dict[str, Any]:
        """Greedy success on problems with tests, as `EvalResult.to_dict()`."""
        config = EvalConfig(max_new_tokens=self.config.max_new_tokens, seed=self.config.seed, sandbox=self.config.sandbox)
        with Sandbox(self.config.sandbox) as sandbox:
            return evaluate(policy_generator(self.policy, config), list(dataset), sandbox, config, model=self.config.model).to_dict()

    def generate_sample(self, prompt: str) -> str:
        """Greedy code for a task in words."""
        params = SamplingParams(max_new_tokens=self.config.max_new_tokens, greedy=True, stop_token_ids=self.policy.stop_token_ids)
        return generate(self.policy, [Problem("sample", prompt)], 1, params, self.generator)[2][0][0].code

    def save(self, folder: str) -> str:
        """Write the model and tokenizer in Hugging Face format; returns the folder."""
        self.policy.save(Path(folder))
        return folder

    def _prompt_ids(self, prompt: str) -> list[int]:
        return encode_prompt(build_prompt(Problem("step", prompt), self.policy.tokenizer), self.policy.tokenizer)

    def _as_sample(self, response: str) -> Sample:
        ids = [*self.policy.tokenizer(response, add_special_tokens=False).input_ids, *sorted(self.policy.stop_token_ids)[:1]]
        # What a response of unknown origin was sampled with is unknown: no importance correction (see update.py)
        return Sample(tuple(ids), "eos", ())
