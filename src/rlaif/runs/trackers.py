"""Adapters to experiment trackers, off by default. Each is imported only when asked for, and nothing else in the package knows of it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from rlaif.config import Tracker
from rlaif.errors import EnvironmentFailure


class RunTracker(Protocol):
    """What the training loop needs of a tracker."""

    def log(self, metrics: Mapping[str, Any], episode: int) -> None: ...

    def close(self) -> None: ...


def open_tracker(kind: Tracker | None, run_path: Path, config: Mapping[str, Any], project: str = "rlaif") -> RunTracker | None:
    """The tracker asked for, or None. Raises EnvironmentFailure that names the extra when its package is missing or cannot start.

    All three write to this machine unless the user set them up to do otherwise: wandb runs offline unless WANDB_MODE says so.
    """
    match kind:
        case None:
            return None
        case "tensorboard":
            return _TensorBoard(run_path)
        case "trackio" | "wandb":
            return _WandbLike(kind, run_path, config, project)


class _TensorBoard:
    """Event files under `tensorboard/` of the run: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, run_path: Path) -> None:
        _require("tensorboard", "tensorboard")
        # torch's own writer would load torch here; tensorboard's record writer is all that a scalar needs.
        events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._event, self._summary = events.Event, summaries.Summary
        self._writer = writer.EventFileWriter(str(run_path / "tensorboard"))

    def log(self, metrics: Mapping[str, Any], episode: int) -> None:
        import time

        values = [self._summary.Value(tag=name, simple_value=value) for name, value in _numbers(metrics).items()]
        self._writer.add_event(self._event(wall_time=time.time(), step=episode, summary=self._summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandbLike:
    """wandb, and trackio, which keeps the same interface."""

    def __init__(self, kind: str, run_path: Path, config: Mapping[str, Any], project: str) -> None:
        import os

        self._module = _require(kind, kind)
        arguments: dict[str, Any] = {"project": project, "name": run_path.name, "config": dict(config)}
        if kind == "wandb":
            arguments |= {"dir": str(run_path), "mode": os.environ.get("WANDB_MODE", "offline")}
        try:
            self._module.init(**arguments)
        except Exception as error:
            raise EnvironmentFailure(f"{kind} could not start", str(error), f"check {kind}'s own setup, or train without --track") from error

    def log(self, metrics: Mapping[str, Any], episode: int) -> None:
        self._module.log(_numbers(metrics), step=episode)

    def close(self) -> None:
        self._module.finish()


def _require(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EnvironmentFailure(
            f"--track {extra} needs the package {package}", str(error), f"pip install 'rlaif[{extra}]', or train without --track"
        ) from None


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
