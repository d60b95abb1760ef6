"""Several processes, one run: `accelerate launch` (or torchrun) starts them, and this is all they need of each other.

Every process holds the whole model (or, sharded, its part of it: policy/sharding.py) and the whole *record* of an episode (token ids, rewards:
kilobytes), and does its share of what costs time: it samples, grades and differentiates its own problems. So advantages, denominators and skipped
groups are those of the whole batch by construction, whoever computes them, and the sum of all gradients is the single process's gradient. Curriculum,
monitor and optimiser stay equal everywhere, because they see the same numbers. Rank 0 alone writes the run directory and speaks.

Not DistributedDataParallel: ranks may have different numbers of micro-batches, over which it would wait for ever. One sum of all gradients after
the last micro-batch sends as many bytes.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from rlaif.config import TrainConfig
from rlaif.errors import UsageError
from rlaif.runs import Console
from rlaif.train.setup import Hooks

T = TypeVar("T")
BUCKET_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class World:
    """Who runs this together. Alone (`size` 1), every method gives back what it was given. All ranks must call the others together."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    """Where tensors must be for the backend: gloo takes the CPU's, NCCL the GPU's."""
    sharded: bool = False
    """Weights, gradients and moments are divided among the ranks (FSDP2) instead of held by each."""

    @property
    def main(self) -> bool:
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's stretch of `items`; all stretches in rank order are `items`."""
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def gather(self, items: Sequence[T]) -> list[T]:
        """The lists of all ranks, one after the other, on every rank."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def from_main(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device(self.device))
        return box[0]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, on `tensor`'s own device."""
        if self.size == 1:
            return tensor
        total = tensor.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up all ranks' gradients in place, in buckets; a rank without one (it had no rows) adds zeros."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if isinstance(parameter, DTensor):
                continue  # FSDP has added them up where each one's share lies
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket]).to(self.device)
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite with rank 0's: nothing that a GPU adds up in another order may set the ranks apart."""
        if self.size == 1:
            return
        for tensor in tensors:
            if isinstance(tensor, DTensor):
                continue  # in one place only
            copy = tensor.detach().to(self.device, copy=True)
            dist.broadcast(copy, src=0)
            tensor.copy_(copy)


def _buckets(tensors: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (sum(one.nbytes for one in bucket) + tensor.nbytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


_world = World()


def world() -> World:
    """The processes of this run, as `join` found them."""
    return _world


def join(config: TrainConfig, hooks: Hooks, console: Console) -> tuple[TrainConfig, Hooks, Console]:
    """Meet the other processes that a launcher started, if it did. Ranks other than 0 get back a silent console and a folder that is thrown away.

    Weights are sharded where the launcher says so (`accelerate launch --use_fsdp`). Raises UsageError for several processes without a folder.
    """
    global _world
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return config, hooks, console
    if config.output_dir is None:
        raise UsageError("Several processes need one folder", "each would take a name of its own", "--output_dir runs/<name>")
    from accelerate import PartialState

    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu)
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    _world = World(state.process_index, state.num_processes, "cpu" if on_cpu else str(state.device), sharded)
    if not _world.main:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever prints: one voice is enough
        folder = Path(tempfile.mkdtemp(prefix=f"rlaif-rank-{_world.rank}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if config.resume:
            _borrow(config.output_dir, folder)
        else:
            folder.rmdir()
        config = config.model_copy(update={"output_dir": folder, "overwrite": False, "track": None})
        hooks, console = dataclasses.replace(hooks, after_episode=None), Console(live=False)
    atexit.register(_part)
    dist.barrier()  # nobody writes to the run before the others have read it
    return config, hooks, console


def leave() -> None:
    """Wait for the others at the end of a run, and be alone again."""
    global _world
    if _world.size > 1:
        dist.barrier()
        _world = World()


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _borrow(run: Path, folder: Path) -> None:
    """What a resumed run reads: small files as copies, checkpoints as a link. All ranks need to see the run (several machines: a shared disk)."""
    if not run.is_dir():
        raise UsageError(f"No run at {run}", "on several machines every one must see the folder", "--output_dir on a shared disk")
    for path in run.iterdir():
        if path.is_file() and path.suffix in {".json", ".jsonl"}:
            shutil.copy(path, folder)
    (folder / "checkpoints").symlink_to((run / "checkpoints").resolve())
