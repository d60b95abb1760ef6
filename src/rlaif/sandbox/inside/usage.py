"""What another process has used so far: its CPU clock on Linux, libproc on macOS (whose RLIMIT_AS does nothing, so memory is watched too)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable

RUSAGE_INFO_V2 = 2
_V2 = struct.Struct("<16s18Q")
"""uuid; user_time, system_time, wake-ups (2), pageins, wired, resident, physical footprint, start, exit, six children's, disk read and written."""

Usage = Callable[[int], tuple[float, int]]


def linux(pid: int) -> tuple[float, int]:
    """(CPU seconds, 0). Raises OSError. Memory needs no watching: RLIMIT_AS holds."""
    return time.clock_gettime((~pid << 3) | 2), 0


def queued_s(pid: int) -> float:
    """Seconds in which the process could have run had a processor been free: the most unlucky thread's. 0 where nobody counts them."""
    worst = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as stream:
                worst = max(worst, int(stream.read().split()[1]))
    except (OSError, ValueError, IndexError):
        pass  # no such file, or a thread that has just ended
    return worst / 1e9


def parse(raw: bytes, numer: int = 1, denom: int = 1) -> tuple[float, int]:
    """(CPU seconds, physical footprint in bytes) from a rusage_info_v2; times are in Mach ticks of numer/denom nanoseconds."""
    _, *fields = _V2.unpack(raw[: _V2.size])
    return (fields[0] + fields[1]) * numer / denom / 1e9, fields[7]


def macos() -> Usage:
    """A reader through libproc. Raises OSError where there is none."""
    libproc = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
    base = (ctypes.c_uint32 * 2)()
    ctypes.CDLL(None).mach_timebase_info(base)

    def read(pid: int) -> tuple[float, int]:
        buffer = ctypes.create_string_buffer(1024)
        if libproc.proc_pid_rusage(pid, RUSAGE_INFO_V2, buffer) != 0:
            raise OSError(ctypes.get_errno(), "proc_pid_rusage")
        return parse(buffer.raw, base[0], base[1])

    return read


def reap() -> tuple[int, int, float] | None:
    """(process, wait status, CPU seconds) of a child that has ended, which is gone then; None if none has. Raises ChildProcessError where there is
    no child."""
    if sys.platform != "linux":
        pid, status, used = os.wait4(-1, os.WNOHANG)
        return (pid, status, used.ru_utime + used.ru_stime) if pid else None
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    cpu_s, _ = linux(ended.si_pid)  # os.wait4 would need the `resource` module
    return *os.waitpid(ended.si_pid, 0), cpu_s


def reader() -> Usage | None:
    """This platform's reader, or None: then RLIMIT_CPU and the client's wall clock are all there is."""
    if sys.platform == "linux":
        return linux
    if sys.platform == "darwin":
        try:
            return macos()
        except OSError:
            return None
    return None
