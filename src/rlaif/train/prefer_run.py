"""What the four `rlaif prefer` commands share: a run directory that is opened, resumed and closed the same way, and held-out evaluation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from rlaif.errors import Interrupted, RunFailed, UsageError
from rlaif.evals import Comparison, EvalResult, compare
from rlaif.policy.model import Policy
from rlaif.problems import load_problems
from rlaif.runs import Console, RunDir
from rlaif.sandbox import Sandbox
from rlaif.train.held_out import evaluate_held_out
from rlaif.train.interrupts import InterruptGuard
from rlaif.train.prefer_config import HeldOutConfig, PreferConfig
from rlaif.train.resume import resumed_config
from rlaif.types import Problem

ConfigT = TypeVar("ConfigT", bound=PreferConfig)
MAY_CHANGE = frozenset({"output_dir", "resume", "overwrite", "threads", "save_every", "rounds"})
"""Settings that a resumed run may change; the rest would make its second half another experiment."""


@dataclass(slots=True)
class Open(Generic[ConfigT]):
    """A run in progress. `done` of `total` units (rounds or steps) are safe on disk."""

    run: RunDir
    config: ConfigT
    console: Console
    guard: InterruptGuard
    total: int = 0
    done: int = 0

    def finished(self, done: int) -> None:
        """Note that `done` units are safe."""
        self.done = done
        self.run.write_status("running", done, self.total)


@contextmanager
def open_run(config: ConfigT, console: Console | None, unit: str) -> Iterator[Open[ConfigT]]:
    """Create or resume the run of `config`, and leave it with an honest status whatever happens.

    unit: what `done` counts ("round", "step"), for messages. Raises Interrupted on Ctrl-C, RunFailed when memory runs out.
    """
    if config.resume and config.output_dir is None:
        raise UsageError("--resume needs the run to go on with", "", "--resume --output_dir runs/<the run>")
    run = RunDir.resume(config.output_dir) if config.resume and config.output_dir else RunDir.create(config.output_dir, overwrite=config.overwrite)
    opened = None
    try:
        if config.resume:
            config = resumed_config(config, run, MAY_CHANGE)
        run.write_config(config)
        if config.threads:
            torch.set_num_threads(config.threads)
        with console or Console() as voice, InterruptGuard() as guard:
            opened = Open(run, config, voice, guard)
            yield opened
            run.write_status("done", opened.total, opened.total)
    except KeyboardInterrupt:
        done = opened.done if opened else 0
        run.write_status("interrupted", done, opened.total if opened else 0)
        why = f"Everything up to {unit} {done} is saved in {run.path}"
        raise Interrupted("Interrupted", why, f"the same command with --output_dir {run.path} --resume") from None
    except torch.OutOfMemoryError as error:
        run.write_status("failed", opened.done if opened else 0, opened.total if opened else 0, "out of memory")
        hint = "a smaller --micro_batch_tokens or --micro_batch_pairs, or --lora_rank 16"
        raise RunFailed("Out of memory", str(error).splitlines()[0], hint) from error
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        run.write_status("failed", opened.done if opened else 0, opened.total if opened else 0, words)
        raise
    finally:
        run.close()


@dataclass(slots=True)
class Lift:
    """Held-out results of a run by name ("before", "after"), and the paired comparison once both are there."""

    evaluations: dict[str, EvalResult] = field(default_factory=dict)
    comparison: Comparison | None = None


def held_out_of(config: HeldOutConfig) -> list[Problem]:
    """The problems to evaluate on. Raises UsageError or ProblemFileError."""
    return load_problems(config.eval_problems or config.problems, split="test", limit=config.eval_limit)


def evaluate_once(name: str, opened: Open[Any], policy: Callable[[], Policy], problems: list[Problem], sandbox: Sandbox) -> None:
    """Evaluate and store as `name`, unless a run that was interrupted has done it already."""
    config = opened.config
    if opened.run.evaluations().get(name) is None:
        evaluate_held_out(name, config.as_train_config(output_dir=None), policy(), problems, sandbox, opened.run, opened.console)


def save_whole(policy: Policy, run: RunDir) -> None:
    """Write `model/` beside its place and rename it: whoever finds it after a kill finds all of it."""
    beside = run.checkpoints_path / "model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    policy.save(beside)
    shutil.rmtree(run.model_path, ignore_errors=True)
    os.replace(beside, run.model_path)


def lift_of(opened: Open[Any]) -> Lift:
    """Compare after with before and write `lift.json`."""
    found = {name: EvalResult.from_dict(data) for name, data in opened.run.evaluations().items()}
    lift = Lift(found)
    if "before" in found and "after" in found:
        lift.comparison = compare(found["before"], found["after"])
        opened.run.write_json("lift.json", {"lift": lift.comparison.to_dict(), "rl_lift": None})
        for line in lift.comparison.lines():
            opened.console.message(line)
    return lift
