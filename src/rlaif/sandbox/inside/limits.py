"""Limits of a process. On Linux without the `resource` module, whose five mappings every fork would copy."""

from __future__ import annotations

import contextlib
import ctypes
import sys

from . import native

INFINITY = 2**64 - 1
_LINUX = {"CPU": 0, "FSIZE": 1, "CORE": 4, "NPROC": 6, "NOFILE": 7, "MEMLOCK": 8, "AS": 9, "MSGQUEUE": 12, "RTPRIO": 14}
"""The same on both machines that have a filter."""


class _Pair(ctypes.Structure):
    _fields_ = (("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64))


_pairs: dict[tuple[int, int], _Pair] = {}
"""Kept, for a call has but an address."""


def ceiling(name: str) -> int:
    """The hard limit; 2**62 where there is none."""
    if sys.platform == "linux":
        pair = _Pair()
        native.make([native.call("getrlimit", _LINUX[name], ctypes.addressof(pair))])
        hard = pair.hard
    else:
        import resource

        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        hard = INFINITY if hard == resource.RLIM_INFINITY else hard
    return min(hard, 2**62)


def call(name: str, soft: int, hard: int) -> native.Call:
    """What sets it, in the process that calls it."""
    if sys.platform != "linux":
        import resource

        return resource.setrlimit, (getattr(resource, f"RLIMIT_{name}"), (soft, hard))
    pair = _pairs.setdefault((soft, hard), _Pair(soft, hard))
    return native.call("setrlimit", _LINUX[name], ctypes.addressof(pair))


def lower(name: str, most: int) -> None:
    """Set both, as far as they are higher. Where a system has no such limit or refuses, nothing happens."""
    with contextlib.suppress(AttributeError, KeyError, ValueError, OSError):
        value = min(most, ceiling(name))
        native.make([call(name, value, value)])
