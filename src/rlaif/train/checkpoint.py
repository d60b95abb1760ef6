"""Checkpoints that survive anything: written beside, synced, renamed into place; tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlaif.errors import RunFailed, UsageError
from rlaif.policy.sharding import like, whole

PART_BYTES = 128 * 2**20
_NAME = re.compile(r"episode-(\d{6})")


def trainable_tensors(*modules: nn.Module | None) -> dict[str, Tensor]:
    """The parameters that training changes, by `<module's place>.<name>`."""
    return {
        f"{place}.{name}": parameter
        for place, module in enumerate(modules)
        if module is not None
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def save_checkpoint(
    folder: Path,
    episode: int,
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep: int,
    write: bool = True,
) -> Path:
    """Write `folder/episode-NNNNNN` and delete all but the newest `keep`. `state` must be JSON. Sharded tensors are written whole.

    write: False for a process that only gives its shards. Raises RunFailed if the disk is full; the earlier checkpoints are then untouched.
    """
    final = folder / f"episode-{episode:06d}"
    beside = folder / f".{final.name}.{os.getpid()}"
    optimizer_state = optimizer.state_dict()
    moments = {
        f"{index}.{key}": value for index, entry in optimizer_state["state"].items() for key, value in entry.items() if isinstance(value, Tensor)
    }
    tensors, moments = _whole(tensors, write), _whole(moments, write)
    if not write:
        return final
    try:
        beside.mkdir(parents=True, exist_ok=True)
        _save_parts(beside, "trainable", tensors)
        _save_parts(beside, "optimizer", moments)
        text = json.dumps({**state, "episode": episode, "optimizer_groups": optimizer_state["param_groups"]})
        (beside / "state.json").write_text(text, encoding="utf-8")
        for path in (*beside.iterdir(), beside):
            _sync(path)
        if final.exists():
            shutil.rmtree(final)
        beside.rename(final)
        _sync(folder)
    except (OSError, RuntimeError) as error:  # safetensors reports a full disk as its own RuntimeError subclass
        shutil.rmtree(beside, ignore_errors=True)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise RunFailed(
                f"The disk is full: checkpoint {final.name} was not written",
                f"The last good one is {newest_checkpoint(folder) or 'none yet'}",
                "free some space, then the same command with --resume",
            ) from error
        raise
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def _whole(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Shards gathered one tensor at a time, onto the CPU; nothing where they are not to be kept."""
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return tensors
    found = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor.detach())
        if keep:
            found[name] = gathered.cpu()
    return found


def _save_parts(folder: Path, stem: str, tensors: dict[str, Tensor]) -> None:
    """Write `stem-000.safetensors` and on. safetensors copies what it writes: one file of everything would double the run's memory."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    for number, part in enumerate(parts):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in part.items()}, folder / f"{stem}-{number:03d}.safetensors")


def _load_parts(folder: Path, stem: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{stem}-*.safetensors")):
        found |= load_file(path)
    return found


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("episode-*") if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None. A half-written one never carries the name of a complete one."""
    found = _all(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore parameters and optimiser in place and return the JSON state.

    Raises UsageError if the checkpoint is broken or belongs to another model or other settings; nothing is changed then.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        saved, moments = _load_parts(path, "trainable"), _load_parts(path, "optimizer")
    except Exception as error:
        raise UsageError(f"Checkpoint {path} cannot be read", str(error), f"delete {path} and --resume from the one before it") from error
    different = {
        name for name in saved.keys() | tensors.keys() if name not in saved or name not in tensors or saved[name].shape != tensors[name].shape
    }
    if different:
        raise UsageError(
            f"Checkpoint {path} belongs to another model or other settings",
            f"{len(different)} tensors differ, for example {min(different)}",
            "resume with the model and the LoRA settings of the run's config.json",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(like(saved[name], tensor))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in moments.items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = like(tensor, parameters[int(index)])
    optimizer.load_state_dict({"state": entries, "param_groups": state.pop("optimizer_groups")})
    return state
