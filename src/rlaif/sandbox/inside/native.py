"""Calls into the C library whose arguments are made beforehand, for a child that is to touch as little as it can."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments. If it gives -1, or raises, it was refused."""

_libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, and no copy of errno: both are pages to touch


def call(name: str, *words: int) -> Call:
    """The C library's function, each argument one register wide."""
    return getattr(_libc, name), tuple(map(ctypes.c_ulong, words))


def make(calls: list[Call]) -> None:
    """Call them all in this order. Raises OSError at the first that is refused."""
    for function, arguments in calls:
        if function(*arguments) == -1:
            errno = _libc.__errno_location
            errno.restype = ctypes.POINTER(ctypes.c_int)
            raise OSError(errno().contents.value, getattr(function, "__name__", "refused"))
