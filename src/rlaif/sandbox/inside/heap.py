"""The zygote's heap without holes: a child that allocates where there is room among old objects has each of those pages copied for it."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

POOL, POOL_HEADER, LARGEST = 16384, 48, 512
"""CPython's small-object allocator: blocks of one size share a pool of 16 KiB (3.10 and later), up to 512 bytes."""
STEPS = (*range(65536, 8192, -4096), *range(8192, 1024, -256), *range(1024, 0, -16))
MOST_BLOCKS = 20_000
_kept: list[object] = []


def fill_holes() -> None:
    """Occupy every free block between live ones, so that what is made from now on lies together, in pages of its own."""
    _fill_pools()
    if sys.platform == "linux":
        _fill_malloc()


def _fill_pools() -> None:
    makers: dict[int, Callable[[], object]] = {16: object, 32: lambda: int("1" * 15)}
    for size in range(16, LARGEST + 1, 16):
        make = makers.get(size) or functools.partial(bytes, size - 33)
        row = 0
        last = -1
        for _ in range(MOST_BLOCKS):
            block = make()
            _kept.append(block)
            row = 1 if id(block) % POOL == POOL_HEADER else row + 1 if row and id(block) == last + size else 0
            if row == 3:
                break  # only a new pool is given out from its beginning and in order: the old ones are full
            last = id(block)


def _fill_malloc() -> None:
    """The C library's: whatever it gives from below the end of its heap is a hole. Pages of a hole are reserved, not touched."""
    libc = ctypes.CDLL(None)
    malloc, free = libc.malloc, libc.free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    end = malloc(STEPS[0] + 16)
    for size in STEPS:
        for _ in range(MOST_BLOCKS):
            block = malloc(size)
            if block is None or block > end:
                free(block)
                break
    free(end)
