"""Which model a command means: a run's, a folder's, or one by name. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.errors import ModelNotFound
from rlaif.policy.weights import is_model_folder
from rlaif.runs import RunDir, is_run, latest_run


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """`source` is what `load_policy` takes; `label` is what people read; `base` is the model that the run began with."""

    source: str
    label: str
    base: str | None = None
    run: RunDir | None = None

    @property
    def run_config(self) -> dict[str, Any]:
        """The settings of the run that made the model; {} for any other model."""
        return self.run.read_config() if self.run else {}


def find_model(model_path: str | None) -> ModelChoice:
    """The model of `model_path` (a run, a model folder, a name), or of the latest run where it is None.

    Raises ModelNotFound if there is no run, or it has no finished model yet.
    """
    if model_path is None:
        run = latest_run(with_model=True)
        if run is None:
            unfinished = latest_run()
            if unfinished is not None:
                raise _unfinished(unfinished)
            raise ModelNotFound(
                "There is no trained model yet",
                "./runs holds no run, and no --model_path was given",
                "python train.py --episodes 20, or --model_path smollm2-135m for the model that training starts from",
            )
        return _of_run(run)
    path = Path(model_path).expanduser()
    if is_run(path):
        return _of_run(RunDir.open(path))
    return ModelChoice(model_path, model_path)


def _of_run(run: RunDir) -> ModelChoice:
    folder = next((path for path in (run.model_path, run.path) if is_model_folder(path)), None)
    if folder is None:
        raise _unfinished(run)
    return ModelChoice(str(folder), str(run.path), run.read_config().get("model"), run)


def _unfinished(run: RunDir) -> ModelNotFound:
    return ModelNotFound(
        f"The run in {run.path} has no finished model", f"it is at {run.progress_text()}", f"rlaif train --output_dir {run.path} --resume"
    )
