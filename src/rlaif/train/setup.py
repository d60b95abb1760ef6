"""Everything a run needs before its first episode: problems, policy, judge, reward; each checked, each with a clear error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlaif.config import TrainConfig
from rlaif.errors import UsageError
from rlaif.judge import Judge, make_judge
from rlaif.policy.model import Policy, load_policy
from rlaif.problems import load_problems, measured_pass_rates
from rlaif.problems.curriculum import MEASURED_WEIGHT, OUTDATED_WEIGHT, Curriculum
from rlaif.problems.dedupe import OverlapReport, overlap_report, without_overlap
from rlaif.problems.split import stable_hash
from rlaif.rewards.engine import RewardEngine
from rlaif.sandbox import Sandbox
from rlaif.types import Problem

WATCH_SHARE = 0.25
"""Of the programs that fail, the judge reads this share, for the monitor's sake."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller adds to a run: the learner's own problems and quality function, and what to do after every episode.

    problems: come up in every episode and are reported apart. quality: solution -> [0, 1], in place of static quality; `quality_hash`
    is its source's, kept in the run's config. after_episode: called with the run's folder (the report is rebuilt there).
    """

    problems: Sequence[Problem] = ()
    quality: Callable[[str], float] | None = None
    quality_hash: str | None = None
    after_episode: Callable[[Path], None] | None = None
    extra_config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProblemSets:
    """The problems of a run. `user` is the part of `train` that the learner wrote."""

    train: list[Problem]
    """What reinforcement learning samples answers to."""
    held_out: list[Problem]
    overlap: OverlapReport
    """What training gives away of the held-out problems."""
    dropped: int = 0
    """Training problems left out for it (drop_overlap)."""
    taught: Sequence[Problem] = ()
    """What the warm start learns references of."""

    @property
    def user(self) -> list[Problem]:
        return [problem for problem in self.train if problem.source == "user"]

    def in_words(self) -> str:
        """What there is to train on, for people."""
        own = f" ({len(self.user)} of your own)" if self.user else ""
        if not self.taught or list(self.taught) == self.train:
            return f"{len(self.train)} problems{own}"
        return f"{len(self.taught)} problems by the warm start, {len(self.train)} others{own} by RL"

    def overlap_lines(self, config: TrainConfig) -> list[str]:
        """The overlap for people, where it says something: the sets are two, or they do overlap."""
        one_set = config.eval_problems in (None, config.problems) and config.practice_problems is None
        if not self.held_out or (one_set and not self.overlap.pairs):
            return []
        advice = f"Left out for it: {self.dropped} training problems." if self.dropped else "--drop_overlap leaves those training problems out."
        return [*self.overlap.lines(), *([advice] if self.overlap.pairs else [])]


def choose_problems(config: TrainConfig, hooks: Hooks) -> ProblemSets:
    """Training and held-out problems with their overlap. Raises UsageError if there is nothing to train on."""
    source = config.practice_problems or config.problems
    train = [*hooks.problems, *load_problems(source, split="train")]
    taught = load_problems(config.problems, split="train") if config.practice_problems else []
    held_out = load_problems(config.eval_problems or config.problems, split="test", limit=config.eval_limit)
    everything = [*taught, *train]
    overlap, loaded = overlap_report(everything, held_out), len(everything)
    if config.drop_overlap:
        taught, train = without_overlap(taught, overlap), without_overlap(train, overlap)
    dropped = loaded - len(taught) - len(train)
    if config.feedback == "execution":
        train = [problem for problem in train if problem.tests_of("graded")]
    if not train:
        raise UsageError(f"No problems to train on in {source}", "its train split is empty, or none has a test", "--problems builtin")
    if config.sft_steps and not config.practice_problems:
        taught, train = divided(train, config.sft_share)
    if len(train) < config.batch_size:
        raise UsageError(
            f"--batch-size {config.batch_size} is more than the {len(train)} training problems of {source}",
            "an episode takes each problem at most once",
            f"--batch-size {len(train)}",
        )
    return ProblemSets(train, held_out, overlap, dropped, taught)


def divided(problems: list[Problem], share: float) -> tuple[list[Problem], list[Problem]]:
    """(what the warm start learns, what RL practises on): all and all for a share of 1, else two parts by a hash of the ids.

    What a user wrote is practised whatever the share, and taught only where all is.
    """
    if share == 1:
        return problems, problems
    own = [problem for problem in problems if problem.source == "user"]
    others = sorted((problem for problem in problems if problem.source != "user"), key=lambda problem: stable_hash(f"warm start {problem.id}"))
    count = round(share * len(others))
    return others[:count], [*own, *others[count:]]


def build_curriculum(problems: list[Problem], config: TrainConfig) -> Curriculum:
    """The order of `problems`, from pass rates that were measured on the untrained default model."""
    weight = OUTDATED_WEIGHT if config.sft_steps else MEASURED_WEIGHT
    return Curriculum(problems, seed=config.seed, uniform=not config.curriculum, measured=measured_pass_rates(), measured_weight=weight)


def build_policy(config: TrainConfig, *, value_head: bool, sharded: bool = False) -> Policy:
    """The policy with fresh adapter and value head. The same seed gives the same initial adapter. sharded: its weights, among all processes."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return load_policy(
        config.model,
        dtype=config.dtype,
        device=config.device,
        lora_rank=config.lora_rank,
        lora_alpha=config.lora_alpha,
        value_head=value_head,
        gradient_checkpointing=config.gradient_checkpointing,
        sharded=sharded,
    )


def build_judge(config: TrainConfig, policy: Policy, run_folder: Path) -> Judge | None:
    """The judge, or None where the reward does not ask one."""
    if config.feedback == "execution" or config.judge.kind == "none":
        return None
    # a sharded policy's weights are at hand only while all processes run it together: the judge gets its own
    return make_judge(config.judge, policy=policy if policy.shards is None else None, cache_dir=run_folder)


def build_engine(config: TrainConfig, sandbox: Sandbox, judge: Judge | None, hooks: Hooks) -> RewardEngine:
    return RewardEngine(sandbox, judge, config.feedback, quality_hook=hooks.quality, watch_share=WATCH_SHARE)
