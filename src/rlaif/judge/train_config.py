"""Settings of `rlaif judge train`. No torch: the help shows them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rlaif.config import Device, SandboxConfig, Settings
from rlaif.judge.constitution import BASE_MODEL
from rlaif.types import DIFFICULTIES, Difficulty


class JudgeTrainConfig(Settings):
    """One training of a judge adapter, from labelled programs."""

    base: str = BASE_MODEL
    """Base model: a folder, a Hub name or an alias."""
    out: Path = Path("my_judge")
    """Folder for the adapter, its calibration and its card."""
    start: Path | None = None
    """An adapter folder to go on from, for training in stages; none: a new adapter."""
    rank: int = Field(16, ge=1)
    """LoRA rank, on every linear layer."""
    alpha: int = Field(32, ge=1)
    learning_rate: float = Field(4e-4, gt=0)
    epochs: int = Field(3, ge=1)
    groups_per_step: int = Field(16, ge=1)
    """Problems in one optimiser step; their programs come together, so that there are pairs."""
    programs_per_group: int = Field(8, ge=2)
    """Programs of one problem in one step, right and wrong in equal parts where there are enough."""
    longest_program: int = Field(1024, ge=16)
    """Programs of more tokens than this, question included, are not learnt from."""
    micro_batch_tokens: int = Field(4096, ge=256)
    """Tokens in one forward and backward pass; lower it if memory runs out. Results do not depend on it."""
    pair_weight: float = Field(0.5, ge=0)
    """Weight of the order loss beside the cross-entropy."""
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of the problems for training, validation (which epoch to keep) and calibration."""
    calibrate_on: str = ""
    """Calibrate on programs whose kind starts with this (`sample`: the policies' own answers); none: on all."""
    constitution: Path | None = None
    """A TOML file of principles; none: the built-in one."""
    device: Device = "auto"
    threads: int | None = Field(None, ge=1)
    """CPU threads; default: all cores."""
    seed: int = 0
    validation_programs: int = Field(300, ge=2)
    """Programs of the validation part that each epoch is measured on."""
    save_every: int = Field(10, ge=1)
    """Steps between checkpoints: a run that was cut off goes on from the last one."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimiser steps."""


class CollectConfig(Settings):
    """What is collected before training, and kept: a second run with the same settings goes on where the first one stopped."""

    labels: Path | None = None
    """Folder of the labelled programs; default: a folder beside --out."""
    problems: str = "builtin"
    """Problems with tests and references; only their training split is learnt from, only their validation split calibrated on."""
    limit: int | None = Field(None, ge=1)
    """Only so many problems of each split."""
    per_problem: int = Field(6, ge=0)
    """Rewrites of each reference, and about as many mutants; 0: none."""
    policies: tuple[str, ...] = (BASE_MODEL,)
    """Models whose own answers are collected."""
    samples: int = Field(6, ge=1)
    """Answers sampled for each easy problem, and half as many for the others, which small models hardly ever solve."""
    levels: tuple[Difficulty, ...] = DIFFICULTIES
    """Levels of difficulty whose problems are sampled: where a model solves nothing, its answers cost most and teach least."""
    max_new_tokens: int = Field(80, ge=1)
    temperature: float = Field(0.8, gt=0)
    runs: tuple[Path, ...] = ()
    """Folders of training runs whose policies' answers are collected: samples that cost nothing more."""
    negatives: bool = True
    """Add answers made to please: self-praise, shown tests learnt by heart, another task's solution."""
    quality_judge: str | None = None
    """A stronger model that compares pairs of right programs, in both orders; none: no labels of quality."""
    quality_principle: str = "clarity"
    """The constitution's principle it compares them by."""
    quality_pairs: int = Field(3, ge=1)
    """Pairs of right programs of one problem that it compares."""
    extra: tuple[Path, ...] = ()
    """More JSONL files of labelled programs to learn from."""


class JudgeTrainCommand(JudgeTrainConfig):
    """`rlaif judge train`: collecting and training."""

    collect: CollectConfig = CollectConfig()
    collect_only: bool = False
    """Stop before training."""
    sandbox: SandboxConfig = SandboxConfig(timeout_s=3.0)
