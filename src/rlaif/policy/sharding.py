"""FSDP2 (`torch.distributed.fsdp.fully_shard`): each process keeps its share of the weights, of their gradients and of the optimiser's moments.

A layer's weights are gathered when the layer runs, forward and backward, and given up after it; gradients are summed where their share lies. What
remains whole on every device is the sampler's copy in the compute type (a token would otherwise cost the traffic of the whole model) and what stands
outside the layers while an update runs (embedding, head, last norm).

Gathering is done together, so all processes run the model the same number of times: `equal_turns` says how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class Shards(nn.Module):
    """The model's root as FSDP sees it: whatever is to run with weights at hand runs inside its `forward`.

    The trainer computes hidden states and log-probabilities by functions of its own, which never call the model's `forward`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
        return compute()


def shard(model: nn.Module, base: nn.Module, device: torch.device) -> Shards:
    """Divide the weights of `model` among all processes, in place, and move what is left here to `device`. All must call it.

    base: the transformers model inside `model` (itself, or LoRA's), which names the layers that are gathered one at a time.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    names = set(getattr(base, "_no_split_modules", None) or ())
    blocks = [module for module in base.modules() if type(module).__name__ in names]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    root = Shards(model)
    fully_shard(root, mesh=mesh)
    for module in (root, *blocks):
        assert isinstance(module, FSDPModule)
        # losses are divided by the denominator of the whole batch, so gradients are sums; and gloo knows no other reduction
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
    return root


def run_gathered(root: Shards, compute: Callable[[], tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
    """`compute()` with the weights at hand; tensors of its tuple may be differentiated. All processes must call it together."""
    result = root(compute)
    if not torch.is_grad_enabled():
        root.reshard()  # as FSDP does after a backward pass: else what stands outside the layers would stay whole, and stale after a step
    return result


def equal_turns(turns: int, device: torch.device) -> int:
    """The largest `turns` of all processes."""
    most = torch.tensor(turns, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def each_gathered(root: Shards, base: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name in `base`, module), with that module's own weights whole while it is yielded: every layer, then `base` with what stands outside them."""
    blocks = [(name, module) for name, module in base.named_modules() if isinstance(module, FSDPModule)]
    for name, module in [*blocks, ("", root)]:
        module.unshard()  # type: ignore[attr-defined]
        yield name, base if module is root else module
        module.reshard()  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all processes' shares of it. All must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Any) -> Tensor:
    """This process's share of `tensor` if `pattern` is sharded and of its shape; no message is sent."""
    if isinstance(pattern, DTensor) and pattern.shape == tensor.shape:
        return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements, src_data_rank=None)
    return tensor
