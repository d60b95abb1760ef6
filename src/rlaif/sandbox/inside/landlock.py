"""Which files a program may open: the standard library, a few devices, and its own scratch folder if it has one.

The folders of installed packages often lie inside the standard library's own, and a package may hold problem files with
their expected values. Where they cannot be covered, every entry of the library is granted by itself, and those folders are
not; that is some two hundred rules, which the kernel copies for every child.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig

from . import native

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # the same on both machines
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
PACKAGES = ("site-packages", "dist-packages")
LEFT_OUT = frozenset({*PACKAGES, "test", "idlelib", "ensurepip", "tkinter", "turtledemo", "lib2to3"})
READABLE = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/usr/share/zoneinfo")

libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


def abi() -> int:
    """The kernel's Landlock version; 0 if there is none."""
    return max(0, libc.syscall(CREATE, None, ctypes.c_size_t(0), 1))


def library_folders() -> list[str]:
    """The standard library's folders, without duplicates."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib")))


def library_entries() -> list[str]:
    """Everything in the standard library but installed packages and what no program needs."""
    return [entry.path for folder in library_folders() for entry in os.scandir(folder) if entry.name not in LEFT_OUT]


def ruleset(extra: list[str], scratch: str | None, covered: bool) -> int:
    """A descriptor of the rules. `covered`: no package can be seen in the library's folders. Raises OSError where the kernel has no Landlock."""
    version = abi()
    if not version:
        raise OSError("no Landlock")
    everything = (1 << (13 + (version >= 2) + (version >= 3))) - 1
    if version >= 5:
        everything |= 1 << 15  # ioctl on devices
    attributes = _Ruleset(everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in [*(library_folders() if covered else library_entries()), *READABLE, *extra]:
        _allow(rules, path, (READ_FILE | READ_DIR) if os.path.isdir(path) else READ_FILE | (WRITE_FILE if path == "/dev/null" else 0))
    if scratch:
        _allow(rules, scratch, everything & ~(EXECUTE | (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12)))  # no devices, sockets, links
    return rules


def _allow(rules: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rule = _PathRule(access, fd)
    result = libc.syscall(ADD_RULE, rules, 1, ctypes.byref(rule), 0)
    number = ctypes.get_errno()
    os.close(fd)
    if result != 0:
        raise OSError(number, f"landlock_add_rule {path}")


def restriction(rules: int) -> native.Call:
    """What binds a process to the rules for good. Needs no_new_privs."""
    return native.call("syscall", RESTRICT, rules, 0)
