"""The zygote (Z): a small interpreter with the standard library loaded, which forks one child a program.

It sees neither code nor tests: P hands it the ends of sockets (SCM_RIGHTS), it forks, and the child reads the rest from
them. It watches the CPU clock of every child, kills what is over its limit or what P asks to be killed, reaps it, and
answers with the wait status and the CPU time. When P hangs up, every child dies and so does it.
"""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]
import _socket as socket  # the bare module: what `socket` adds would be copied for every child
import builtins
import contextlib
import errno
import gc
import json
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import heap, landlock, lockdown, modules, native, protocol, rehearsal, solution, tester, usage

RESERVED = 10
"""Descriptors below this are the children's own: 0 to 2, channel, peer, library folder."""
CHANNEL_FD, PEER_FD, LIBRARY_FD = 3, 4, 5
PLACES = ((protocol.HAS_CHANNEL, CHANNEL_FD), (protocol.HAS_PEER, PEER_FD), (protocol.HAS_STDIN, 0), (protocol.HAS_STDOUT, 1))
Life = tuple[Callable[..., None], tuple[int, ...]]
LIVES: dict[int, Life] = {
    protocol.KIND_SOLUTION: (solution.main, (CHANNEL_FD,)),
    protocol.KIND_TEST: (tester.main, (CHANNEL_FD, PEER_FD)),
    protocol.KIND_SCRIPT: (solution.script, (CHANNEL_FD,)),
}
LEAVE: list[native.Call] = [(_signal.set_wakeup_fd, (-1,)), (_signal.signal, (_signal.SIGCHLD, _signal.SIG_DFL)), (os.setsid, ())]
"""How a child leaves Z's signals and session (Z has a wake-up descriptor, so giving it up gives no -1). The C functions: those of `signal` make
enum members."""
MEMORY_POLL_S = 0.02
"""Where RLIMIT_AS is refused (macOS), memory is looked at this often."""


class Child:
    """One program, from before its fork to its end. `pid` is 0 until then."""

    __slots__ = ("calls", "check_at", "cpu_s", "errno", "fds", "life", "memory", "pid", "reason", "slot", "status")

    def __init__(self, status: socket.socket, cpu_s: float, memory: int, slot: int) -> None:
        self.pid, self.errno = 0, 0
        self.status, self.cpu_s, self.memory, self.slot = status, cpu_s, memory, slot
        self.check_at = time.monotonic() + (cpu_s / lockdown.PARALLEL if lockdown.LINUX else MEMORY_POLL_S)
        self.reason = protocol.REASON_NONE
        self.calls: list[native.Call] = []
        self.fds: list[int] = []
        self.life: Life = LIVES[protocol.KIND_SOLUTION]


class Zygote:
    """The loop. One thread, no user code, ever."""

    def __init__(self, control: socket.socket, options: dict[str, Any]) -> None:
        self.control = control
        self.children: dict[int, Child] = {}
        self.by_fd: dict[int, Child] = {}
        self.slots: list[int] = []
        self.next_slot = 0
        self.poll = select.poll()
        self.usage = usage.reader()
        options["live"] = self.children
        self.jail = lockdown.Jail(options)
        self.keep = PEER_FD + 1
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
                    self._asked(self.by_fd[fd])
            if soonest is not None and time.monotonic() >= soonest:
                self._check_clocks()
            self._reap()

    def check(self) -> list[str]:
        """Lock a throw-away child down and let it try what must not work. A layer that does not hold is not claimed."""
        layers = self.jail.layers
        self.jail.before(0)
        self.slots.append(0)
        self.next_slot = 1
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._probe(writer)
        os.close(writer)
        said = os.read(reader, 4096).decode()
        os.close(reader)
        os.waitpid(pid, 0)
        notes = [line for line in said.splitlines() if line]
        broken = {line.split(":")[0] for line in notes}
        if not said.endswith("\n.\n") and notes != ["."]:
            broken |= {"seccomp", "landlock"}
            notes.append("the probe did not finish")
        for name in broken & set(layers):
            layers[name] = False
        return [note for note in notes if note != "."]

    def _probe(self, writer: int) -> None:
        os.dup2(writer, CHANNEL_FD)
        try:
            native.make(self.jail.calls(0, self.keep, 1.0, 2**31, 2**20))
            attempts = [
                ("landlock", lambda: os.open("/etc/passwd", os.O_RDONLY)),
                ("landlock", lambda: os.open("/", os.O_RDWR | os.O_TMPFILE)),
            ]
            attempts += [("seccomp", os.fork), ("seccomp", lambda: socket.socket(socket.AF_INET))] if self.jail.filter else []
            for layer, attempt in attempts if self.jail.landlock else attempts[2:]:
                try:
                    attempt()
                except (OSError, PermissionError):
                    continue
                os.write(CHANNEL_FD, f"{layer}: does not hold\n".encode())
            os.write(CHANNEL_FD, b".\n")
        except BaseException as error:
            os.write(CHANNEL_FD, f"seccomp: {error}\nlandlock: {error}\n".encode())
        os._exit(0)

    def _check_clocks(self) -> None:
        now = time.monotonic()
        for child in list(self.children.values()):
            if child.check_at <= now:
                try:
                    cpu_s, memory = self.usage(child.pid) if self.usage else (0.0, 0)
                except OSError:
                    cpu_s, memory = 0.0, 0  # RLIMIT_CPU and P's wall clock remain
                if memory > child.memory:
                    self._kill(child, protocol.REASON_MEMORY)
                elif cpu_s >= child.cpu_s:
                    self._kill(child, protocol.REASON_CPU)
                left = (child.cpu_s - cpu_s) / lockdown.PARALLEL
                child.check_at = now + max(left if lockdown.LINUX else min(left, MEMORY_POLL_S), 0.01)

    def _asked(self, child: Child) -> None:
        try:
            wish = child.status.recv(64)
        except OSError:
            wish = b""
        if wish.strip(protocol.TIMES) or not wish:
            return self._kill(child, protocol.REASON_ASKED)
        try:
            cpu_s, _ = self.usage(child.pid) if self.usage else (0.0, 0)
            record = protocol.EXIT.pack(0, int(cpu_s * 1e6), int(usage.queued_s(child.pid) * 1e6), protocol.REASON_ALIVE, 0)
            child.status.send(record, socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has just died: its end is the answer

    def _kill(self, child: Child, reason: int) -> None:
        if child.reason == protocol.REASON_NONE:
            child.reason = reason
        if reason == protocol.REASON_ASKED and child.status.fileno() in self.by_fd:
            self.poll.unregister(child.status.fileno())
            del self.by_fd[child.status.fileno()]
        child.check_at = time.monotonic() + 0.02  # and again, until it is reaped
        for kill, target in ((os.killpg, child.pid), (os.kill, child.pid)):
            with contextlib.suppress(OSError):  # not yet a group of its own, or already dead
                kill(target, signal.SIGKILL)

    def _reap(self) -> None:
        while self.children:
            try:
                ended = usage.reap()
            except ChildProcessError:
                return
            if ended is None:
                return
            pid, status, cpu_s = ended
            child = self.children.pop(pid, None)
            if child is None:
                continue  # an orphan that a program left behind (grade base)
            self.jail.after(child.slot)
            if self.by_fd.pop(child.status.fileno(), None) is not None:
                self.poll.unregister(child.status.fileno())
            self._report(child.status, status, int(cpu_s * 1e6), 0, child.reason, 0)
            self.slots.append(child.slot)

    def _end(self) -> None:
        for pid in self.children:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.jail.close()
        os._exit(0)

    @staticmethod
    def _report(status: socket.socket, *fields: int) -> None:
        with contextlib.suppress(OSError):  # P may have lost interest
            status.send(protocol.EXIT.pack(*fields))
        status.close()

    def _spawn(self) -> None:
        """Fork what one message asks for, as a rule a few children at once.

        After a fork each page that Z writes to is copied, so next to nothing happens between two: what the children need is made before the
        first, and what Z keeps of them is put away after the last.
        """
        try:
            data, ancillary, _, _ = self.control.recvmsg(protocol.SPAWN.size * protocol.MAX_BATCH, socket.CMSG_SPACE(5 * 4 * protocol.MAX_BATCH))
        except OSError:
            data, ancillary = b"", []
        if not data or len(data) % protocol.SPAWN.size:
            self._end()  # P is gone
        given = [fd for _, _, part in ancillary for (fd,) in struct.iter_unpack("i", part[: len(part) - len(part) % 4])]
        children = [self._expect(record, given) for record in protocol.SPAWN.iter_unpack(data)]
        fork, child = os.fork, children[0]
        try:
            for child in children:
                if not child.errno:
                    child.pid = fork() or self._live(child)
        except OSError as error:
            child.errno = error.errno or -1
        for child in children:
            if child.pid:
                self.children[child.pid] = self.by_fd[child.status.fileno()] = child
                self.poll.register(child.status.fileno(), select.POLLIN)
            else:
                self._report(child.status, 0, 0, 0, protocol.REASON_SPAWN_FAILED, child.errno or errno.EAGAIN)
                self.slots.append(child.slot)
            for fd in child.fds:
                os.close(fd)

    def _expect(self, record: tuple[int, ...], given: list[int]) -> Child:
        """A child that is to be forked, and all that it will do before it runs anything."""
        kind, has, _, cpu_ms, memory, fsize, _ = record
        status = socket.socket(fileno=given.pop(0))
        slot = self.slots.pop() if self.slots else self.next_slot
        if slot == self.next_slot:
            self.next_slot += 1
        child = Child(status, cpu_ms / 1000, memory, slot)
        child.life = LIVES[kind]
        child.fds = [given.pop(0) for bit, _ in PLACES if has & bit]
        left = iter(child.fds)
        taken = [(os.dup2, (next(left) if has & bit else self.null, number)) for bit, number in PLACES]
        try:
            self.jail.before(slot)
            child.calls = [*LEAVE, *taken, *self.jail.calls(slot, self.keep, child.cpu_s, memory, fsize), (gc.enable, ())]
        except OSError as error:
            child.errno = error.errno or errno.EIO
        return child

    def _live(self, child: Child) -> NoReturn:
        """In the child: take the descriptors, give up everything else, run."""
        try:
            native.make(child.calls)
            life, channels = child.life
            life(*channels)
            os._exit(0)
        except BaseException as error:
            if self.jail.options["debug"]:
                import traceback

                os.write(2, traceback.format_exc().encode())
            os._exit(97 if isinstance(error, MemoryError) else 96)


def main(argument: str) -> None:
    """Start: `argument` is JSON from the client, descriptor 0 is the control socket. Says hello with the layers reached."""
    options = json.loads(argument)
    control = socket.socket(fileno=os.dup2(0, RESERVED, inheritable=False))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]
    if options.get("site"):
        sys.path.append(options["site"])
    modules.preload(options["numpy"])
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(RESERVED):  # so that nothing received later lands on a number that a child wants
        if fd != null and not (fd == 2 and options["debug"]):
            os.dup2(null, fd, inheritable=False)
    options["libraries"] = modules.linked()
    zygote = Zygote(control, options)
    folder = landlock.library_folders()[0]
    if zygote.jail.own_uid and not modules.reachable(folder):
        other = zygote.jail.bind(folder)
        if other:
            modules.rebase(folder, other)
        else:
            modules.preload_extensions()
            if zygote.jail.landlock:
                os.dup2(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), LIBRARY_FD, inheritable=False)
                sys.meta_path.append(modules.DescriptorFinder(LIBRARY_FD))
                zygote.keep = LIBRARY_FD + 1
    threading.stack_size(2**21)  # many threads must fit into the address space
    notes = zygote.check()
    builtins.exit = builtins.quit = solution.exit_  # which `site` would give
    rehearsal.play()
    gc.collect()
    heap.fill_holes()
    gc.disable()
    gc.freeze()
    said = {"layers": zygote.jail.layers, "python": sys.version.split()[0], "numpy": "numpy" in sys.modules, "notes": notes}
    hello = json.dumps(said | {"first_uid": zygote.jail.first_uid}).encode()
    control.sendall(len(hello).to_bytes(4, "little") + hello)
    zygote.run()
