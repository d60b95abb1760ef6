"""How much memory the run has taken, and what the C library's allocator does with what is freed.

By default it gives large blocks back to the system at once, which clears and maps every page of them anew for the next layer: a fifth of an
update's time. So it is told to keep them, and gives them back where memory is short or a phase is over.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
SCARCE = 0.15
"""Memory is short when less than this share of it is available. Giving back takes time: the next phase's pages are cleared anew."""
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


def peak_memory_bytes() -> int:
    """The most memory this process has had resident, or the GPU's peak if that is where the model is."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep blocks of up to 2 GiB for the next who asks. False where there is none, or the environment says otherwise."""
    mallopt = _glibc("mallopt")
    if mallopt is None or any(os.environ.get(name) for name in _USERS_OWN) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    return mallopt(M_TRIM_THRESHOLD, -1) == 1 and mallopt(M_MMAP_THRESHOLD, 2**31 - 1) == 1


def give_back_memory(*, if_scarce: bool = False) -> None:
    """Return freed memory to the system (glibc only). `if_scarce`: only where little is left.

    Sampling and updating each free gigabytes in pieces of different sizes, and what the allocator keeps of both adds up.
    """
    trim = _glibc("malloc_trim")
    if trim is not None and not (if_scarce and available_share() > SCARCE):
        trim(0)


def available_share(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """How much of the machine's memory, or of the control group's (version 2), is available; 0 where that cannot be known."""
    try:
        lines = dict(line.split(":") for line in (proc / "meminfo").read_text().splitlines())
        total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError, IndexError):
        return 0.0
    try:
        limit = int((cgroup / "memory.max").read_text())
        held = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        used = int((cgroup / "memory.current").read_text()) - int(held["inactive_file"])
    except (OSError, ValueError, KeyError):
        return available / total
    return min(available / total, max(0.0, 1 - used / limit))


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
