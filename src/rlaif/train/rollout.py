"""One episode's experience: sample completions, get feedback, keep everything the update and the report need."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlaif.algos.recipes import recipe_for
from rlaif.config import TrainConfig
from rlaif.policy.fused_update import can_fuse_update
from rlaif.policy.model import Policy
from rlaif.policy.sampler import Sample, SamplingParams, draws, sample
from rlaif.policy.trace import Trace
from rlaif.problems.prompting import Prompt, build_prompt, encode_prompt, extract_code
from rlaif.rewards.engine import RewardEngine
from rlaif.sandbox import Job, Sandbox
from rlaif.train.distributed import world
from rlaif.train.journal import FeedbackJournal
from rlaif.types import Completion, Feedback, Problem, Rollout


@dataclass(slots=True)
class Batch:
    """P problems with G completions each; rows of [B = P·G] tensors go problem by problem."""

    prompt_ids: list[list[int]]
    samples: list[list[Sample]]
    reward_PG: Float[Tensor, "P G"]
    valid_PG: Bool[Tensor, "P G"]
    """False where nobody could score: out of the baseline, the advantage and the denominator."""
    rollouts: list[Rollout]
    sample_s: float
    feedback_s: float
    trace: Trace | None = None
    """What sampling left for the update."""

    @property
    def completion_ids(self) -> list[list[tuple[int, ...]]]:
        return [[one.token_ids for one in group] for group in self.samples]

    @property
    def truncated_PG(self) -> Bool[Tensor, "P G"]:
        return torch.tensor([[one.finish_reason == "length" for one in group] for group in self.samples])


def make_prompts(problems: Sequence[Problem], tokenizer: object) -> tuple[list[Prompt], list[list[int]]]:
    """Prompts and their token ids."""
    prompts = [build_prompt(problem, tokenizer) for problem in problems]
    return prompts, [encode_prompt(prompt, tokenizer) for prompt in prompts]


def generate(
    policy: Policy, problems: Sequence[Problem], group_size: int, params: SamplingParams, generator: torch.Generator, trace: Trace | None = None
) -> tuple[list[list[int]], list[list[Sample]], list[list[Completion]]]:
    """Sample G completions of each problem -> prompt ids [P], samples [P][G], completions [P][G].

    Several processes sample a part each, by the draws that one process would have used, and all of them get everything.
    """
    prompts, prompt_ids = make_prompts(problems, policy.tokenizer)
    if prompts:
        params = dataclasses.replace(params, stop_texts=prompts[0].stop_texts)
    draws_PGT = draws(len(prompts), group_size, params, generator)
    samples = world().gather(sample(policy, world().shard(prompt_ids), group_size, params, draws_PGT=world().shard(draws_PGT), trace=trace))
    completions = [
        [_completion(policy, problem, prompt, one) for one in group] for problem, prompt, group in zip(problems, prompts, samples, strict=True)
    ]
    return prompt_ids, samples, completions


def _completion(policy: Policy, problem: Problem, prompt: Prompt, one: Sample) -> Completion:
    text = policy.tokenizer.decode(one.token_ids, skip_special_tokens=True)
    return Completion(problem.id, text, extract_code(problem, prompt, text), tuple(one.token_ids), one.finish_reason)


def collect(
    policy: Policy,
    problems: Sequence[Problem],
    engine: RewardEngine,
    sandbox: Sandbox | None,
    journal: FeedbackJournal,
    config: TrainConfig,
    episode: int,
    generator: torch.Generator,
) -> Batch:
    """Sample and grade one episode. Held-out tests are run too, for the monitor alone: they never touch a reward."""
    start = time.perf_counter()
    params = SamplingParams(max_new_tokens=config.max_new_tokens, temperature=config.temperature, stop_token_ids=policy.stop_token_ids)
    trace = Trace() if trace_serves(policy, config) else None
    prompt_ids, samples, completions_PG = generate(policy, problems, config.group_size, params, generator, trace)
    sampled = time.perf_counter()
    row_problems = [problem for problem in problems for _ in range(config.group_size)]
    completions = [completion for group in completions_PG for completion in group]
    feedbacks = _feedback(engine, journal, row_problems, completions, episode)
    held_out = held_out_results(sandbox, row_problems, completions)
    rollouts = [
        Rollout(episode, problem, completion, feedback, held_out_passed=None if hidden is None else all(hidden), extra=_extra(hidden))
        for problem, completion, feedback, hidden in zip(row_problems, completions, feedbacks, held_out, strict=True)
    ]
    shape = (len(problems), config.group_size)
    rewards = torch.tensor([0.0 if feedback.reward is None else feedback.reward for feedback in feedbacks], dtype=torch.float32)
    valid = torch.tensor([feedback.reward is not None for feedback in feedbacks])
    return Batch(
        prompt_ids,
        samples,
        rewards.view(shape),
        valid.view(shape),
        rollouts,
        sample_s=sampled - start,
        feedback_s=time.perf_counter() - sampled,
        trace=trace,
    )


def trace_serves(policy: Policy, config: TrainConfig) -> bool:
    """Whether an update can take its layers' products from sampling: its only step is on the weights that sampled, and nothing is compared with it.

    Its log-probabilities differ by rounding from those of a pass of its own, and what a later step or the reference is held against must come from
    the same computation as they do. Of several processes each has sampled a part.
    """
    one_step = config.update_epochs * config.minibatches == 1
    referenced = recipe_for(config.algo).needs_reference(config.kl_coef)
    return one_step and not referenced and world().size == 1 and can_fuse_update(policy)


def _feedback(
    engine: RewardEngine, journal: FeedbackJournal, problems: Sequence[Problem], completions: Sequence[Completion], episode: int
) -> list[Feedback]:
    keys = journal.keys(episode, [completion.code for completion in completions])
    known = world().from_main([journal.get(key) for key in keys])
    missing = [place for place, feedback in enumerate(known) if feedback is None]
    mine = world().shard(missing)
    fresh = world().gather(engine.score([problems[place] for place in mine], [completions[place].code for place in mine]))
    journal.put([keys[place] for place in missing], fresh)
    by_place = dict(zip(missing, fresh, strict=True))
    return [feedback if feedback is not None else by_place[place] for place, feedback in enumerate(known)]


def held_out_results(sandbox: Sandbox | None, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[list[bool] | None]:
    """Which of its problem's held-out tests each completion passes, in their order; None where there are none or nobody could say."""
    result: list[list[bool] | None] = [None] * len(problems)
    if sandbox is None:
        return result
    places = [place for place, problem in enumerate(problems) if problem.tests_of("held_out")]
    jobs = [Job(problems[place], completions[place].code, ("held_out",)) for place in world().shard(places)]
    reports = world().gather(sandbox.run_many(jobs))
    for place, report in zip(places, reports, strict=True):
        if report.outcome == "infra_failure":
            continue
        count = len(problems[place].tests_of("held_out"))
        passed = [one.passed for one in report.results]
        result[place] = passed if len(passed) == count else [report.all_passed] * count  # it did not come as far as its tests
    return result


def _extra(hidden: list[bool] | None) -> dict[str, list[bool]]:
    return {"held_out": hidden} if hidden else {}


def held_out_passed(sandbox: Sandbox | None, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[bool | None]:
    """Whether each completion passes all of its problem's held-out tests; None as above."""
    return [None if hidden is None else all(hidden) for hidden in held_out_results(sandbox, problems, completions)]
