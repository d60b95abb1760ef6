"""How much memory the run has taken, and giving back what it no longer uses."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch


def peak_memory_bytes() -> int:
    """The most memory this process has had resident, or the GPU's peak if that is where the model is."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def give_back_memory() -> None:
    """Return freed memory to the system (glibc only).

    Sampling and updating each free gigabytes in pieces that the allocator keeps for itself, and the two phases' leftovers add up.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
