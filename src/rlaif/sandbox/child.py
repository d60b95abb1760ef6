"""The client's end of one child: numbered questions and answers without blocking, its death, and what that death means."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
from dataclasses import dataclass
from typing import Any

from rlaif.sandbox.inside import protocol
from rlaif.sandbox.inside.protocol import ANSWER, ASK, BYE, FRAME
from rlaif.sandbox.loop import READ, WRITE, Task, Wait
from rlaif.sandbox.zygotes import Zygote, ZygoteGone

KILL_GRACE_S = 5.0
DONTWAIT = socket.MSG_DONTWAIT  # a flag of ours alone: O_NONBLOCK would bind the test child too, which shares the channel
_number = random.SystemRandom().getrandbits


class Ended(Exception):
    """The program's own doing ended it: `failure` is one of TestReport's words."""

    def __init__(self, failure: str, text: str) -> None:
        super().__init__(text)
        self.failure, self.text = failure, text


class SpawnFailed(Exception):
    """The zygote could not fork."""


class Family:
    """The processes of one program, and how long to wait for them: `blocked_s` of wall time in which none had or wanted a processor.

    Time that they computed is the CPU limit's business, and time that they stood in the queue is the machine's fault, so a busy
    machine fails nobody. `most_s` bounds the whole all the same.
    """

    def __init__(self, blocked_s: float, most_s: float) -> None:
        self.blocked_s, self.most_s = blocked_s, most_s
        self.waited_s = self.active_s = 0.0
        self.members: list[ChildProcess] = []

    def _left_s(self) -> float:
        return min(self.blocked_s + self.active_s, self.most_s) - self.waited_s

    def wait(self, fd: int, events: int, over: bool = False) -> Task[bool]:
        """True once the descriptor is ready, False when the time is up. Raises ZygoteGone."""
        while True:
            wait = Wait(((fd, events),), max(0.0, self._left_s()), over)
            ready = yield wait
            self.waited_s += wait.spent_s
            if ready:
                return True
            self.active_s = 0.0
            for member in self.members:
                self.active_s += yield from member.used_s()
            if self._left_s() < 0.005:
                return False


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended, in the zygote's words."""

    status: int
    cpu_s: float
    reason: int
    errno: int


class ChildProcess:
    """One child. Methods that wait are generators for `loop`."""

    def __init__(self, zygote: Zygote, started: int, status: socket.socket, channel: socket.socket | None, family: Family) -> None:
        """`started`: which start of the zygote it belongs to. `channel`: None for a whole program, which is told nothing."""
        self.zygote, self.started = zygote, started
        self.status, self.channel = status, channel
        self.family = family
        family.members.append(self)
        self.exit: Exit | None = None
        self.buffer = b""

    # -- frames --------------------------------------------------------------------------------------------------------
    def ask(self, question: Any) -> Task[Any]:
        """Send one question, return the answer. Raises Ended, ZygoteGone or SpawnFailed."""
        (number,) = yield from self.put(question)
        return (yield from self.hear(number))

    def put(self, *questions: Any, last: bool = False) -> Task[list[int]]:
        """Send questions; their numbers, which nobody could foresee. `last`: BYE goes along with them."""
        if self.buffer:  # what comes between this look and the question has no number that fits an answer
            raise Ended("tampering", "it spoke before it was asked")
        numbers = [_number(32) for _ in questions]
        data = b"".join(protocol.pack(number, ASK, question) for number, question in zip(numbers, questions, strict=True))
        if last:
            data += protocol.pack(0, BYE, None)
        yield from self._send(data)
        return numbers

    def hear(self, number: int, patience_s: float | None = None) -> Task[Any]:
        """The answer to the question with this number, and nothing else. None if it takes longer than `patience_s`."""
        frame = yield from self._frame(patience_s)
        if frame is None:
            return None
        got, answer_kind, reply = frame
        if got != number & 0xFFFFFFFF or answer_kind != ANSWER or type(reply) is not dict:
            raise Ended("tampering", "it sent a frame that nobody asked for")
        return reply

    def say_bye(self) -> Task[None]:
        """Tell it that this was all."""
        if self.buffer or self._pending():
            raise Ended("tampering", "it spoke before it was asked")
        yield from self._send(protocol.pack(0, BYE, None))

    def bye(self, sent: bool) -> Task[str]:
        """Let it end and check that nothing else was said. Returns its captured output."""
        if not sent:
            yield from self.say_bye()
        number, kind, reply = (yield from self._frame()) or (0, 0, None)
        if number != 0 or kind != BYE or type(reply) is not dict:
            raise Ended("tampering", "it sent a frame that nobody asked for")
        exit_ = yield from self.ended(over=True)
        if self.buffer or self._pending() or exit_.status != 0:
            raise Ended("tampering", "it went on after the last answer")
        text = reply.get("out", "")
        return text[:16384] if type(text) is str else ""

    def _pending(self) -> bool:
        assert self.channel is not None
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.buffer += self.channel.recv(64, DONTWAIT)
        return bool(self.buffer)

    def _send(self, data: bytes) -> Task[None]:
        assert self.channel is not None
        view = memoryview(data)
        while view:
            try:
                view = view[self.channel.send(view, DONTWAIT) :]
                continue
            except BlockingIOError:
                pass
            except OSError:
                yield from self._died()
            if not (yield from self.family.wait(self.channel.fileno(), WRITE)):
                yield from self._overdue()

    def _frame(self, patience_s: float | None = None) -> Task[tuple[int, int, Any] | None]:
        assert self.channel is not None
        need = FRAME.size
        parts, have = [self.buffer], len(self.buffer)
        header: tuple[int, int, int] | None = None
        while True:
            if have >= need:
                data = b"".join(parts)
                parts = [data]
                if header is None:
                    header = FRAME.unpack_from(data)
                    if header[0] > protocol.MAX_FRAME:
                        raise Ended("tampering", f"it sent a frame of {header[0]} bytes")  # its own side refuses to
                    need = FRAME.size + header[0]
                    continue
                self.buffer = data[need:]
                try:
                    return header[1], header[2], protocol.parse(data[FRAME.size : need])
                except (ValueError, RecursionError):
                    raise Ended("tampering", "it sent a frame that is not JSON") from None
            if patience_s is not None:
                if not (yield Wait(((self.channel.fileno(), READ),), patience_s)):
                    return None
            elif not (yield from self.family.wait(self.channel.fileno(), READ)):
                yield from self._overdue()
            try:
                chunk = self.channel.recv(min(max(need - have, 8192), 2**20), DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                yield from self._died()
            parts.append(chunk)
            have += len(chunk)

    # -- death ---------------------------------------------------------------------------------------------------------
    def ended(self, kill: bool = False, grace_s: float | None = None, over: bool = False) -> Task[Exit]:
        """Wait for the zygote's word that it is dead and reaped; after `grace_s` kill it. `over`: it has said its last word, and needs no worker.
        Raises ZygoteGone if the zygote is dead itself, SpawnFailed if the child never lived."""
        while self.exit is None:
            if kill:
                with contextlib.suppress(OSError):
                    self.status.send(protocol.KILL)
                yield from self._record(KILL_GRACE_S)
            elif grace_s is not None:
                yield from self._record(grace_s, sure=False)
                kill = True
            elif (yield from self.family.wait(self.status.fileno(), READ, over)):
                yield from self._record(KILL_GRACE_S)
            else:
                kill = True
        return self.exit

    def used_s(self) -> Task[float]:
        """Seconds in which it computed, or stood ready with no processor free."""
        if self.exit is None:
            with contextlib.suppress(OSError):
                self.status.send(protocol.TIMES)
            alive = yield from self._record(KILL_GRACE_S)
            if alive is not None:
                return alive
        return self.exit.cpu_s if self.exit else 0.0

    def _record(self, patience_s: float, sure: bool = True) -> Task[float | None]:
        """One record of the zygote's: the times of a living child, or None and `exit` is set. `sure`: it must come, or the zygote hangs."""
        data = b""
        while len(data) < protocol.EXIT.size:
            try:
                chunk = self.status.recv(protocol.EXIT.size - len(data))
            except BlockingIOError:
                if not (yield Wait(((self.status.fileno(), READ),), patience_s)):
                    if not sure:
                        return None
                    self.zygote.lost(self.started)
                    raise ZygoteGone("the zygote did not answer") from None
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self.zygote.lost(self.started)
                raise ZygoteGone("the zygote died")
            data += chunk
        status, cpu_us, queued_us, reason, errno = protocol.EXIT.unpack(data)
        if reason == protocol.REASON_ALIVE:
            return (cpu_us + queued_us) / 1e6
        self.exit = Exit(status, cpu_us / 1e6, reason, errno)
        if reason == protocol.REASON_SPAWN_FAILED:
            raise SpawnFailed(f"fork failed with errno {errno}")
        return None

    def _overdue(self) -> Task[None]:
        yield from self.ended(kill=True)
        raise Ended("timeout", "it ran out of wall time")

    def _died(self) -> Task[None]:
        """The channel is closed: wait for the end (a child that closed it and lives on is killed) and say what it was."""
        exit_ = yield from self.ended(grace_s=0.05)
        raise cause(exit_)

    def close(self) -> None:
        """Give back the descriptors; a child that still lives is killed by the hang-up."""
        if self.channel is not None:
            self.channel.close()
        self.status.close()


def cause(exit_: Exit) -> Ended:
    """What a death in the middle of the work means."""
    if exit_.reason == protocol.REASON_CPU:
        return Ended("timeout", "it ran out of CPU time")
    if exit_.reason == protocol.REASON_MEMORY:
        return Ended("memory", "it ran out of memory")
    if exit_.status & 0x7F:
        number = exit_.status & 0x7F
        if number == signal.SIGXCPU:
            return Ended("timeout", "it ran out of CPU time")
        if exit_.reason == protocol.REASON_ASKED and number == signal.SIGKILL:
            return Ended("early_exit", "it closed its channel")
        name = signal.Signals(number).name if number in signal.valid_signals() else str(number)
        return Ended("crash", f"the interpreter died of {name}")
    code = exit_.status >> 8
    if code == 97:
        return Ended("memory", "it ran out of memory")
    return Ended("early_exit", f"it exited with status {code} before it answered")
