"""The client's end of a zygote: start it, ask it for children, notice that it is gone. Never forks and never unpickles."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from rlaif.errors import SandboxUnavailable
from rlaif.sandbox import bubblewrap, seatbelt
from rlaif.sandbox.inside import protocol

START_TIMEOUT_S = 30.0
ENVIRONMENT = {"LANG": "C.UTF-8", "TZ": "UTC", "TMPDIR": ".", "HOME": "."}
ENVIRONMENT |= {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # or address space runs out
BOOT = Path(__file__).parent / "inside" / "boot.py"


class ZygoteGone(Exception):
    """The zygote died or cannot be reached; the program may be retried on a fresh one."""


def interpreter() -> str:
    """The real interpreter behind a virtual environment or a shim: starting it directly is quicker and reads no site-packages."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


class Zygote:
    """One zygote process and its control socket. Thread-safe; `generation` counts restarts."""

    def __init__(self, *, numpy: bool = False, without: frozenset[str] = frozenset()) -> None:
        self.numpy = numpy
        self.without = without
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.hello: dict[str, Any] = {}
        self.starts = 0

    def _options(self) -> dict[str, Any]:
        site = None
        if self.numpy:
            spec = importlib.util.find_spec("numpy")
            site = str(Path(spec.origin).parent.parent) if spec and spec.origin else None
        debug = bool(os.environ.get("RLAIF_SANDBOX_DEBUG"))
        return {"block": random.SystemRandom().getrandbits(30), "numpy": self.numpy, "site": site, "without": sorted(self.without), "debug": debug}

    def _start(self) -> None:
        """Start the process and read its greeting. Call with the lock held. Raises SandboxUnavailable."""
        self._stop()
        ours, theirs = socket.socketpair()
        options = self._options()
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
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def start(self) -> dict[str, Any]:
        """Make sure that it runs; the greeting."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            return self.hello

    def spawn(self, kind: int, has: int, fds: list[int], cpu_s: float, memory: int, fsize: int) -> socket.socket:
        """Ask for a child with these descriptors. Returns the status socket. Raises ZygoteGone or SandboxUnavailable."""
        ours, theirs = socket.socketpair()
        record = protocol.SPAWN.pack(kind, has, 0, int(cpu_s * 1000), memory, fsize, 0)
        with theirs, self.lock:
            try:
                if self.control is None:
                    self._start()
                assert self.control is not None
                socket.send_fds(self.control, [record], [theirs.fileno(), *fds])
            except OSError as error:
                self._stop()
                ours.close()
                raise ZygoteGone(str(error)) from None
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return ours

    def lost(self, started: int) -> None:
        """A program found the zygote dead: drop it, unless another thread has started a new one since."""
        with self.lock:
            if self.starts == started:
                self._stop()

    def close(self) -> None:
        """Stop it; every child dies with it."""
        with self.lock:
            process, control = self.process, self.control
            self.process = self.control = None
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
