"""A training judge on disk: adapter weights and Adam's state as safetensors, the step as its metadata. Nothing here needs unpickling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def save(path: Path, model: Any, optimiser: torch.optim.Optimizer, best: tuple[float, dict[str, Tensor]] | None, note: dict[str, Any]) -> None:
    """Write all of it at once, or not at all. note: JSON (the next step, and the settings that the run belongs to)."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in _trained(model).items():
        tensors[f"model/{name}"] = parameter.detach()
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value
    if best is not None:
        tensors |= {f"best/{name}": value for name, value in best[1].items()}
    content = {name: value.to("cpu").contiguous().clone() for name, value in tensors.items()}
    draft = path.with_suffix(".tmp")
    save_file(content, draft, {"note": json.dumps(note), "best": json.dumps(best[0] if best else None)})
    draft.replace(path)


def load(
    path: Path, model: Any, optimiser: torch.optim.Optimizer, expected: dict[str, Any]
) -> tuple[int, tuple[float, dict[str, Tensor]] | None] | None:
    """Put it back into model and optimiser -> (next step, best so far); None if there is no file, or it belongs to another run."""
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
        note = json.loads(metadata["note"])
        step = note.pop("step")
        if note != json.loads(json.dumps(expected)):
            return None
        groups: dict[str, dict[str, Tensor]] = {}
        for full in stored.keys():  # noqa: SIM118 (no mapping: it has no __iter__)
            kind, _, name = full.partition("/")
            groups.setdefault(kind, {})[name] = stored.get_tensor(full)
    with torch.no_grad():
        for name, parameter in _trained(model).items():
            parameter.copy_(groups["model"][name])
            optimiser.state[parameter] = {
                kind: group[name] if kind == "step" else group[name].to(parameter.device)
                for kind, group in groups.items()
                if kind not in ("model", "best") and name in group
            }
    score = json.loads(metadata["best"])
    return step, None if score is None else (score, groups["best"])


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
