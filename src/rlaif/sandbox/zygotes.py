"""The client's end of a zygote: start it, ask it for children, notice that it is gone. Never forks and never unpickles."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif.errors import SandboxUnavailable
from rlaif.sandbox import bubblewrap, seatbelt, uids
from rlaif.sandbox.inside import protocol

START_TIMEOUT_S = 30.0
ENVIRONMENT = {"LANG": "C.UTF-8", "TZ": "UTC", "TMPDIR": ".", "HOME": ".", "LD_BIND_NOW": "1"}
ENVIRONMENT |= {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # or address space runs out
BOOT = Path(__file__).parent / "inside" / "boot.py"


HAS_STATUS = 0
"""The place of the status socket among a child's descriptors: the first, and no bit of its own, for every child has one."""

SPARE_AGE_S = 10.0
"""A child that has waited longer is not used: what it was given at its birth (the limit on threads, say) may be out of date."""


class ZygoteGone(Exception):
    """The zygote died or cannot be reached; the program may be retried on a fresh one."""


def interpreter() -> str:
    """The real interpreter behind a virtual environment or a shim: starting it directly is quicker and reads no site-packages."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def caged(layers: dict[str, bool]) -> bool:
    """True where a program can reach no other process; only there may the next program's process exist while one runs."""
    return bool(layers.get("seccomp") and layers.get("landlock"))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use."""

    cpu_s: float
    memory: int
    fsize: int


@dataclass(frozen=True, slots=True)
class Hatched:
    """A fresh solution child that has been told nothing, with a fresh test child at its channel if `tester` is there."""

    limits: Limits
    born: float
    status: socket.socket
    channel: socket.socket
    tester: tuple[socket.socket, socket.socket] | None
    """(status, channel) of the test child."""

    def close(self) -> None:
        """Hanging up kills them."""
        for end in (self.channel, self.status, *(self.tester or ())):
            end.close()

    def usable(self, now: float) -> bool:
        """Still alive and young."""
        if now - self.born > SPARE_AGE_S:
            return False
        try:
            for status in (self.status, *(self.tester or ())[:1]):
                try:
                    status.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
                    return False  # the zygote's word that it is dead, or the zygote itself is
                except BlockingIOError:
                    pass
        except OSError:
            return False
        return True


class Zygote:
    """One zygote process and its control socket. Thread-safe; `starts` counts restarts.

    Up to `spares` processes (solution children, or half as many with a test child each) are kept forked and locked down in advance,
    so that the next program need not wait for that. Each still runs one program only.
    """

    def __init__(self, *, numpy: bool = False, without: frozenset[str] = frozenset(), spares: int = 0) -> None:
        self.numpy = numpy
        self.without = without
        self.spares = spares
        self.waiting: dict[bool, deque[Hatched]] = {False: deque(), True: deque()}
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.claim: socket.socket | None = None
        self.hello: dict[str, Any] = {}
        self.starts = 0

    def _options(self, block: int) -> dict[str, Any]:
        site = None
        if self.numpy:
            spec = importlib.util.find_spec("numpy")
            site = str(Path(spec.origin).parent.parent) if spec and spec.origin else None
        debug = bool(os.environ.get("RLAIF_SANDBOX_DEBUG"))
        return {"block": block, "numpy": self.numpy, "site": site, "without": sorted(self.without), "debug": debug}

    def _start(self) -> None:
        """Start the process and read its greeting. Call with the lock held. Raises SandboxUnavailable."""
        self._stop()
        ours, theirs = socket.socketpair()
        block, self.claim = uids.claim()
        options = self._options(block)
        folders = bubblewrap.readable(BOOT, options["site"])
        wrapper = None if "bubblewrap" in self.without else bubblewrap.prefix(interpreter(), folders)
        options["bubblewrap"] = wrapper is not None
        wrapper = wrapper or seatbelt.prefix(folders)
        options["sandbox_exec"] = wrapper is not None and not options["bubblewrap"]
        command = [*(wrapper or []), interpreter(), "-I", "-S", "-B", "-X", "utf8", str(BOOT), json.dumps(options)]
        try:
            with theirs, tempfile.TemporaryFile() as errors:
                self.process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=errors,
                    stderr=None if os.environ.get("RLAIF_SANDBOX_DEBUG") else errors,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
                theirs.close()
                ours.settimeout(START_TIMEOUT_S)
                try:
                    size = int.from_bytes(ours.recv(4, socket.MSG_WAITALL), "little")
                    greeting = ours.recv(size, socket.MSG_WAITALL) if size else b""
                    self.hello = json.loads(greeting)
                except (OSError, ValueError):
                    self._stop()
                    errors.seek(0)
                    said = errors.read().decode("utf-8", "replace").strip()[-600:]
                    raise SandboxUnavailable("The sandbox did not start", said or "it ended without a word", "run `rlaif doctor`") from None
        except OSError as error:
            raise SandboxUnavailable("The sandbox did not start", str(error), "run `rlaif doctor`") from None
        ours.settimeout(None)
        self.control = ours
        self.starts += 1

    def _stop(self) -> None:
        self._drop_spares()
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self.claim is not None:
            self.claim.close()
            self.claim = None

    def start(self) -> dict[str, Any]:
        """Make sure that it runs; the greeting."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            return self.hello

    def spawn(self, kind: int, fds: dict[int, int], limits: Limits) -> tuple[socket.socket, int]:
        """Ask for a child with these descriptors, by protocol.HAS_ bit. Returns (status socket, which start of the zygote it belongs to).

        Raises ZygoteGone or SandboxUnavailable.
        """
        ours, theirs = socket.socketpair()
        with self.lock, theirs:
            try:
                self._send([(kind, {HAS_STATUS: theirs.fileno()} | fds)], limits)
            except BaseException:
                ours.close()
                raise
            ours.setblocking(False)
            return ours, self.starts

    def _send(self, wishes: list[tuple[int, dict[int, int]]], limits: Limits) -> None:
        """One message to the zygote, which is started if need be: kinds of children, and their descriptors by bit."""
        records = [protocol.SPAWN.pack(kind, sum(fds), 0, int(limits.cpu_s * 1000), limits.memory, limits.fsize, 0) for kind, fds in wishes]
        try:
            if self.control is None:
                self._start()
            assert self.control is not None
            socket.send_fds(self.control, [b"".join(records)], [fds[bit] for _, fds in wishes for bit in sorted(fds)])
        except OSError as error:
            self._stop()
            raise ZygoteGone(str(error)) from None

    def _hatch(self, limits: Limits, tester: bool, count: int) -> list[Hatched]:
        """So many fresh children (or pairs of them) with one message. Raises ZygoteGone or SandboxUnavailable."""
        out: list[Hatched] = []
        wishes: list[tuple[int, dict[int, int]]] = []
        with contextlib.ExitStack() as theirs:

            def pair() -> tuple[socket.socket, int]:
                here, there = socket.socketpair()
                return here, theirs.enter_context(there).fileno()

            try:
                for _ in range(count):
                    (status, status_fd), (channel, channel_fd) = pair(), pair()
                    status.setblocking(False)
                    wishes.append((protocol.KIND_SOLUTION, {HAS_STATUS: status_fd, protocol.HAS_CHANNEL: channel_fd}))
                    out.append(Hatched(limits, time.monotonic(), status, channel, None))
                    if tester:
                        (status, status_fd), (own, own_fd) = pair(), pair()
                        status.setblocking(False)
                        fds = {HAS_STATUS: status_fd, protocol.HAS_CHANNEL: own_fd, protocol.HAS_PEER: channel.fileno()}
                        wishes.append((protocol.KIND_TEST, fds))
                        out[-1] = replace(out[-1], tester=(status, own))
                self._send(wishes, limits)
            except BaseException:
                for hatched in out:
                    hatched.close()
                raise
        return out

    def take(self, limits: Limits, tester: bool) -> tuple[Hatched, int]:
        """Fresh children for one program, and which start of the zygote they belong to. Raises ZygoteGone or SandboxUnavailable."""
        with self.lock:
            now = time.monotonic()
            while self.waiting[tester]:
                spare = self.waiting[tester].popleft()
                if spare.limits == limits and spare.usable(now):
                    return spare, self.starts
                spare.close()
            return self._hatch(limits, tester, 1)[0], self.starts

    def prepare(self, limits: Limits, tester: bool) -> None:
        """Fork in advance what the next programs of this kind will need, several at once. Best called while the zygote has nothing else to do."""
        with self.lock, contextlib.suppress(ZygoteGone, SandboxUnavailable, OSError):  # whoever needs it will be told
            waiting, most = self.waiting[tester], self.spares // 2 if tester else self.spares
            if self.control is not None and len(waiting) <= most // 2 < most and caged(self.hello["layers"]):
                waiting += self._hatch(limits, tester, most - len(waiting))

    def drop_spares(self) -> None:
        """End the children that wait for a program."""
        with self.lock:
            self._drop_spares()

    def _drop_spares(self) -> None:
        for waiting in self.waiting.values():
            while waiting:
                waiting.pop().close()

    def lost(self, started: int) -> None:
        """A program found the zygote dead: drop it, unless another thread has started a new one since."""
        with self.lock:
            if self.starts == started:
                self._stop()

    def close(self) -> None:
        """Stop it; every child dies with it."""
        with self.lock:
            self._drop_spares()
            process, control, claim = self.process, self.control, self.claim
            self.process = self.control = self.claim = None
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
        if process is not None:
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if claim is not None:  # nobody lives under these uids any more
            claim.close()
