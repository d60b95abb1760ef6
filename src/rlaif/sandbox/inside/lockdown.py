"""What a child gives up before it runs code: the layers, each probed for at start and reported.

Everything goes through ctypes, so that no compiler is needed. The order matters: limits, then uid, then no_new_privs,
Landlock, and seccomp last, because each step needs a call that a later one takes away.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Any

PARALLEL = os.cpu_count() or 1
"""A program's threads can burn this many CPU seconds a second, so its clock is looked at that much sooner."""

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 4, 38, 36
MAX_OPEN_FILES = 64
MAX_THREADS = 256
FIRST_UID = 61184
"""Numbers that systemd keeps for short-lived services; nobody owns a file under them."""

libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> bool:
    """True if the kernel agreed."""
    return libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0


def _limit(name: str, soft: int, hard: int | None = None) -> None:
    number = getattr(resource, name, None)
    if number is None:
        return
    _, ceiling = resource.getrlimit(number)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        hard = min(hard, ceiling)
    try:
        resource.setrlimit(number, (min(soft, hard), hard))
    except (ValueError, OSError):  # macOS refuses some of them
        pass


class Jail:
    """The layers of this machine. Lives in Z; `enter` runs in the child."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.off = set(options["without"])
        self.layers: dict[str, bool] = {"rlimits": True, "session": True}
        self.own_uid = LINUX and os.geteuid() == 0 and "own_uid" not in self.off and self._can_change_uid()
        self.layers["own_uid"] = self.own_uid
        _limit("RLIMIT_CORE", 0)
        if LINUX:
            self.layers["subreaper"] = prctl(PR_SET_CHILD_SUBREAPER, 1)
            self.layers["non_dumpable"] = prctl(PR_SET_DUMPABLE, 0)
            self.layers["no_new_privs"] = "no_new_privs" not in self.off and prctl(PR_SET_NO_NEW_PRIVS, 1)
            for name in ("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_RTPRIO"):
                _limit(name, 0)

    @staticmethod
    def _can_change_uid() -> bool:
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(FIRST_UID, FIRST_UID, FIRST_UID)
                os.setresuid(FIRST_UID, FIRST_UID, FIRST_UID)
                os._exit(0)
            except OSError:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    def before(self, slot: int) -> None:
        """In Z, before the fork."""

    def after(self, slot: int, pid: int) -> None:
        """In Z, after the child was reaped: nothing of it may remain."""

    def enter(self, slot: int, zygote: int, cpu_s: float, memory: int, fsize: int) -> None:
        """In the child. Raises if a layer that was promised cannot be had: then nothing runs."""
        seconds = int(cpu_s) + 2  # Z's clock is the limit; this is for a Z that is late
        _limit("RLIMIT_CPU", seconds, seconds + 1)
        if LINUX:
            _limit("RLIMIT_AS", memory)
        _limit("RLIMIT_FSIZE", fsize)
        _limit("RLIMIT_NOFILE", MAX_OPEN_FILES)
        if self.own_uid:
            _limit("RLIMIT_NPROC", MAX_THREADS)
            uid = FIRST_UID + slot % 4000
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if LINUX:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != zygote:
                os._exit(95)
            prctl(PR_SET_DUMPABLE, 0)
        os.closerange(5, 65536 if LINUX else 4096)

    def probe(self, zygote: int) -> dict[str, Any]:
        """What was reached, for the greeting."""
        return {"layers": self.layers, "python": sys.version.split()[0], "numpy": "numpy" in sys.modules, "pid": zygote}
