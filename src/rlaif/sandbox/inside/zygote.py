"""The zygote (Z): a small interpreter with the standard library loaded, which forks one child a program.

It sees neither code nor tests: P hands it the ends of sockets (SCM_RIGHTS), it forks, and the child reads the rest from
them. It watches the CPU clock of every child, kills what is over its limit or what P asks to be killed, reaps it, and
answers with the wait status and the CPU time. When P hangs up, every child dies and so does it.
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from . import lockdown, protocol, solution, tester

PREIMPORT = [
    "abc",
    "argparse",
    "array",
    "ast",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "cmath",
    "codecs",
    "collections",
    "collections.abc",
    "colorsys",
    "contextlib",
    "contextvars",
    "copy",
    "copyreg",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "enum",
    "fnmatch",
    "fractions",
    "functools",
    "gc",
    "getopt",
    "glob",
    "graphlib",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "inspect",
    "io",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "locale",
    "logging",
    "math",
    "numbers",
    "opcode",
    "operator",
    "os",
    "pathlib",
    "pprint",
    "queue",
    "random",
    "re",
    "reprlib",
    "secrets",
    "select",
    "shlex",
    "shutil",
    "signal",
    "stat",
    "statistics",
    "string",
    "stringprep",
    "struct",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "token",
    "tokenize",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "unittest.mock",
    "urllib.parse",
    "uuid",
    "warnings",
    "weakref",
    "zlib",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.ascii",
    "encodings.unicode_escape",
]
NUMPY = [
    "numpy",
    "numpy.linalg",
    "numpy.fft",
    "numpy.random",
    "numpy.polynomial",
    "numpy.ma",
    "numpy.testing",
    "numpy.lib.stride_tricks",
    "numpy.rec",
    "numpy.char",
]

RESERVED = 10
"""Descriptors below this are the children's own: 0 to 2, channel, peer, library folder."""
CHANNEL_FD, PEER_FD, LIBRARY_FD = 3, 4, 5


class Child:
    """One live program."""

    __slots__ = ("asked", "check_at", "clock", "cpu_s", "pid", "reason", "slot", "status")

    def __init__(self, pid: int, status: socket.socket, cpu_s: float, slot: int) -> None:
        self.pid, self.status, self.cpu_s, self.slot = pid, status, cpu_s, slot
        self.clock = (~pid << 3) | 2  # Linux's clock id for another process's CPU time
        self.check_at = time.monotonic() + cpu_s / lockdown.PARALLEL
        self.reason = protocol.REASON_NONE


class Zygote:
    """The loop. One thread, no user code, ever."""

    def __init__(self, control: socket.socket, options: dict[str, Any]) -> None:
        self.control = control
        self.pid = os.getpid()
        self.children: dict[int, Child] = {}
        self.by_fd: dict[int, Child] = {}
        self.slots: list[int] = []
        self.next_slot = 0
        self.poll = select.poll()
        self.jail = lockdown.Jail(options)
        self.null = os.open(os.devnull, os.O_RDWR)
        self.wake_r, self.wake_w = os.pipe()
        for fd in (self.wake_r, self.wake_w):
            os.set_blocking(fd, False)

    def run(self) -> None:
        signal.set_wakeup_fd(self.wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poll.register(self.control.fileno(), select.POLLIN)
        self.poll.register(self.wake_r, select.POLLIN)
        control, wake = self.control.fileno(), self.wake_r
        while True:
            now = time.monotonic()
            soonest = min((child.check_at for child in self.children.values()), default=None)
            for fd, _ in self.poll.poll(None if soonest is None else max(0.0, soonest - now) * 1000 + 0.5):
                if fd == control:
                    self._spawn()
                elif fd == wake:
                    os.read(wake, 4096)
                else:
                    self._kill(self.by_fd[fd], protocol.REASON_ASKED)
            if soonest is not None and time.monotonic() >= soonest:
                self._check_clocks()
            self._reap()

    def _check_clocks(self) -> None:
        now = time.monotonic()
        for child in list(self.children.values()):
            if child.check_at <= now:
                try:
                    left = child.cpu_s - time.clock_gettime(child.clock)
                except OSError:
                    left = child.cpu_s  # no such clock here: RLIMIT_CPU and P's wall clock remain
                if left <= 0:
                    self._kill(child, protocol.REASON_CPU)
                child.check_at = now + max(left / lockdown.PARALLEL, 0.01)

    def _kill(self, child: Child, reason: int) -> None:
        if child.reason == protocol.REASON_NONE:
            child.reason = reason
        if reason == protocol.REASON_ASKED and child.status.fileno() in self.by_fd:
            self.poll.unregister(child.status.fileno())
            del self.by_fd[child.status.fileno()]
        child.check_at = time.monotonic() + 0.02  # and again, until it is reaped
        for kill, target in ((os.killpg, child.pid), (os.kill, child.pid)):
            try:
                kill(target, signal.SIGKILL)
            except OSError:  # not yet a group of its own, or already dead
                pass

    def _reap(self) -> None:
        while self.children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is None:
                continue  # an orphan that a program left behind (grade base)
            self.jail.after(child.slot, pid)
            cpu_us = int((usage.ru_utime + usage.ru_stime) * 1e6)
            if self.by_fd.pop(child.status.fileno(), None) is not None:
                self.poll.unregister(child.status.fileno())
            self._report(child.status, status, cpu_us, usage.ru_maxrss, child.reason, 0)
            self.slots.append(child.slot)

    @staticmethod
    def _report(status: socket.socket, *fields: int) -> None:
        try:
            status.send(protocol.EXIT.pack(*fields))
        except OSError:  # P has lost interest
            pass
        status.close()

    def _spawn(self) -> None:
        try:
            record, ancillary, _, _ = self.control.recvmsg(protocol.SPAWN.size, socket.CMSG_SPACE(5 * 4))
        except OSError:
            os._exit(0)
        if len(record) != protocol.SPAWN.size:
            os._exit(0)  # P is gone; the children die with us (PDEATHSIG) or by their sockets
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        given = list(fds)
        kind, has, _, cpu_ms, memory, fsize, _ = protocol.SPAWN.unpack(record)
        status = socket.socket(fileno=given.pop(0))
        slot = self.slots.pop() if self.slots else self.next_slot
        if slot == self.next_slot:
            self.next_slot += 1
        try:
            self.jail.before(slot)
            pid = os.fork()
        except OSError as error:
            self._report(status, 0, 0, 0, protocol.REASON_SPAWN_FAILED, error.errno or 0)
            self.slots.append(slot)
        else:
            if pid == 0:
                self._child(kind, has, given, slot, cpu_ms, memory, fsize)
            child = self.children[pid] = Child(pid, status, cpu_ms / 1000, slot)
            self.by_fd[status.fileno()] = child
            self.poll.register(status.fileno(), select.POLLIN)
        for fd in given:
            os.close(fd)

    def _child(self, kind: int, has: int, given: list[int], slot: int, cpu_ms: int, memory: int, fsize: int) -> None:
        """In the child: take the descriptors, give up everything else, run. Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for bit, number in ((protocol.HAS_CHANNEL, CHANNEL_FD), (protocol.HAS_PEER, PEER_FD), (protocol.HAS_STDIN, 0), (protocol.HAS_STDOUT, 1)):
                os.dup2(given.pop(0) if has & bit else self.null, number)
            self.jail.enter(slot, self.pid, cpu_ms / 1000, memory, fsize)
            gc.enable()
            if kind == protocol.KIND_SOLUTION:
                solution.main(CHANNEL_FD)
            elif kind == protocol.KIND_TEST:
                tester.main(CHANNEL_FD, PEER_FD)
            elif kind == protocol.KIND_SCRIPT:
                solution.script(CHANNEL_FD)
            os._exit(0)
        except BaseException as error:
            if self.jail.options["debug"]:
                import traceback

                os.write(2, traceback.format_exc().encode())
            os._exit(97 if isinstance(error, MemoryError) else 96)


def main(argument: str) -> None:
    """Start: `argument` is JSON from the client, descriptor 0 is the control socket. Says hello with the layers reached."""
    options = json.loads(argument)
    control = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, RESERVED))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]
    if options.get("site"):
        sys.path.append(options["site"])
    for name in PREIMPORT + (NUMPY if options["numpy"] else []):
        try:
            importlib.import_module(name)
        except Exception:  # not in this Python, or numpy is broken: the solution will be told so when it imports it
            pass
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(RESERVED):  # so that nothing received later lands on a number that a child wants
        if fd != null and not (fd == 2 and options["debug"]):
            os.dup2(null, fd, inheritable=False)
    zygote = Zygote(control, options)
    hello = json.dumps(zygote.jail.probe(zygote.pid)).encode()
    gc.collect()
    gc.disable()
    gc.freeze()
    control.sendall(len(hello).to_bytes(4, "little") + hello)
    zygote.run()
