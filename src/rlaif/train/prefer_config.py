"""The settings of `rlaif prefer`: collect, reward-model, dpo, revise. No torch, so that a command's help is instant.

Names that `rlaif train` has too mean the same thing here. A round is to collecting what an episode is to training: one batch of problems.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from rlaif.config import TRAINING_SANDBOX, Device, Dtype, JudgeConfig, SandboxConfig, Settings, TrainConfig, check_folder_use

PROBLEMS: str = TrainConfig.model_fields["problems"].default
"""The same as for `rlaif train`, so that its paths can be compared."""


class PreferConfig(Settings):
    """What all four have in common."""

    model: str = "smollm2-135m"
    """Local folder, Hub name, or `smollm2-135m`."""
    output_dir: Path | None = None
    """Where the run goes; default: runs/<time>. A folder that exists needs --resume or --overwrite."""
    dtype: Dtype = "auto"
    """Compute type: bfloat16 where the processor is fast at it (measured at start)."""
    device: Device = "auto"
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    """CPU threads; default: all cores."""
    resume: bool = False
    """Go on with what is in output_dir."""
    overwrite: bool = False
    """Delete what is in output_dir first."""

    @model_validator(mode="after")
    def _one_of_two(self) -> PreferConfig:
        check_folder_use(self.resume, self.overwrite)
        return self


class SamplingConfig(PreferConfig):
    """Settings of the commands that sample answers to training problems."""

    problems: str = PROBLEMS
    """`builtin/intro`, `builtin` (all levels), a data set's name, or a JSONL file; its train split is sampled from."""
    rounds: int = Field(20, ge=1)
    """Batches of problems. With --resume, more rounds add to what is there."""
    batch_size: int = Field(6, ge=1)
    """Problems in one round."""
    group_size: int = Field(6, ge=1)
    """Answers sampled for each problem."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0.7, gt=0)
    curriculum: bool = True
    """Prefer problems whose outcome is uncertain for the model: there the answers differ, and make pairs."""
    judge: JudgeConfig = JudgeConfig()
    sandbox: SandboxConfig = TRAINING_SANDBOX


class CollectConfig(SamplingConfig):
    """Preference pairs: sampled from the model, labelled by running them, and by the judge where that ties."""

    pairs_per_problem: int = Field(3, ge=1)
    """Pairs that tests decide, at most so many of one problem's answers: those that pass against those that fail come first."""
    judged_per_problem: int = Field(1, ge=0)
    """Pairs that tie by the tests and the judge decides, at most so many of one problem's answers."""

    @model_validator(mode="after")
    def _two_answers(self) -> CollectConfig:
        if self.group_size < 2:
            raise ValueError("group_size must be at least 2: a pair is made of two answers to one problem")
        return self


class LearningConfig(PreferConfig):
    """Settings of the commands that change weights."""

    epochs: int = Field(2, ge=1)
    """Passes over what is learnt from: the pairs, or the kept revisions."""
    learning_rate: float = Field(1e-5, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    lora_rank: int = Field(0, ge=0)
    """0: train all weights; otherwise a LoRA adapter of this rank (then raise --learning-rate, for example to 2e-4)."""
    lora_alpha: float = Field(32.0, gt=0)


class FitConfig(LearningConfig):
    """Settings of the commands that train on pairs."""

    preferences: Path | None = None
    """A folder written by `rlaif prefer collect`, or a JSONL file with prompt, chosen and rejected (Hugging Face's preference format)."""
    pairs_per_step: int = Field(8, ge=1)
    """Pairs in one optimiser step."""
    save_every: int = Field(20, ge=1)
    """Checkpoint every this many steps (and on Ctrl-C)."""
    max_pairs: int | None = Field(None, ge=1)
    """Use the first so many pairs only."""


class HeldOutConfig(PreferConfig):
    """Held-out evaluation before and after, by the harness of `rlaif train` and `rlaif evaluate`."""

    problems: str = PROBLEMS
    """`builtin/intro`, `builtin` (all levels), a data set's name, or a JSONL file; its test split is evaluated on."""
    eval_problems: str | None = None
    """Evaluate on the test split of these problems instead."""
    eval_limit: int | None = Field(None, ge=1)
    """Evaluate on this many problems only."""
    eval_samples: int = Field(4, ge=1)
    """Samples per problem, at --temperature; 1: greedy."""
    max_new_tokens: int = Field(64, ge=1)
    temperature: float = Field(0.7, gt=0)
    sandbox: SandboxConfig = TRAINING_SANDBOX

    def as_train_config(self, **changes: Any) -> TrainConfig:
        """The same settings under the same names, for what `rlaif train` shares with these commands."""
        shared = {name: getattr(self, name) for name in TrainConfig.model_fields if name in type(self).model_fields}
        return TrainConfig(**{**shared, **changes})


class RewardModelConfig(FitConfig):
    """A reward model: a scalar head on the model's body, trained by Bradley-Terry on (soft) labels."""

    problems: str | None = None
    """Where the problems of a bare preference file are found by their id; a folder of `rlaif prefer collect` holds its own."""
    head_learning_rate: float = Field(1e-3, gt=0)
    """The scalar head's own rate: it starts at zero."""
    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Share of the problems whose pairs are kept for measuring and calibrating, and never trained on."""
    micro_batch_tokens: int = Field(2048, ge=64)
    """Tokens in one forward and backward pass; lower it if memory runs out. Results do not depend on it."""


class DpoConfig(FitConfig, HeldOutConfig):
    """Offline DPO on collected pairs, through TRL's DPOTrainer."""

    beta: float = Field(0.1, gt=0)
    """How much moving away from the reference costs."""
    learning_rate: float = Field(5e-6, gt=0)
    micro_batch_pairs: int = Field(4, ge=1)
    """Pairs in one forward and backward pass; lower it if memory runs out."""
    max_length: int = Field(1024, ge=16)
    """Longest prompt and answer together, in tokens; what is longer is cut at its end."""
    min_probability: float = Field(0.75, ge=0.5, le=1)
    """Leave out pairs whose label is less sure than this: DPO takes every label for certain."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""


class ReviseConfig(SamplingConfig, HeldOutConfig, LearningConfig):
    """Constitutional AI's first stage: sample, critique, revise, keep what passes, fine-tune on it."""

    problems: str = PROBLEMS
    """`builtin/intro`, `builtin` (all levels), a data set's name, or a JSONL file: its train split is sampled from, its test split evaluated on."""
    group_size: int = Field(2, ge=1)
    """Answers sampled for each problem; each is criticised once and revised once."""
    critique_tokens: int = Field(96, ge=1)
    """Longest critique, in tokens."""
    revision_tokens: int = Field(96, ge=1)
    """Longest revision, in tokens."""
    sft_batch_size: int = Field(8, ge=1)
    """Revisions in one step of fine-tuning."""
    micro_batch_tokens: int = Field(1024, ge=64)
