"""How a zygote makes children: a heap without holes, several forks for one message, packages out of sight, and work while the dead are buried."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import SandboxConfig
from rlaif.sandbox import Sandbox, uids
from rlaif.sandbox.inside import protocol
from rlaif.sandbox.inside import zygote as inside
from rlaif.sandbox.loop import READ, Task, Wait, run_all
from rlaif.sandbox.zygotes import Limits, Zygote, interpreter

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
ROOT = Path(inside.__file__).parent

HOLES = """
import ctypes, importlib.util, sys
spec = importlib.util.spec_from_file_location("heap", sys.argv[1])
heap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(heap)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
small = [bytes(200) for _ in range(3000)]
large = [libc.malloc(2000) for _ in range(500)]
holes = {id(block) for block in small[::2]} | set(large[::2])
del small[::2]
for block in large[::2]:
    libc.free(block)
if sys.argv[2] == "fill":
    heap.fill_holes()
again = [bytes(200) for _ in range(500)]
print(sum(id(block) in holes for block in again), sum(libc.malloc(2000) in holes for _ in range(100)))
"""


@LINUX
def test_a_zygotes_heap_has_no_holes() -> None:
    def reused(how: str) -> list[int]:
        done = subprocess.run([interpreter(), "-I", "-S", "-c", HOLES, str(ROOT / "heap.py"), how], capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    assert reused("fill") == [0, 0]
    assert min(reused("leave")) > 50


class _Jail:
    """No layers; the second scratch folder cannot be made."""

    def __init__(self) -> None:
        self.options = {"debug": False}

    def before(self, slot: int) -> None:
        if slot == 1:
            raise OSError(28, "full")

    def calls(self, *_: Any) -> list[Any]:
        return []


def test_one_message_makes_several_children_and_says_which_could_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    zygote = inside.Zygote.__new__(inside.Zygote)
    zygote.control, zygote.children, zygote.by_fd, zygote.slots, zygote.next_slot = theirs, {}, {}, [], 0  # type: ignore[assignment]
    zygote.poll, zygote.jail, zygote.keep, zygote.null = select.poll(), _Jail(), 5, -1  # type: ignore[assignment]
    forks = iter([101, OSError(11, "no more")])

    def fork() -> int:
        pid = next(forks)
        if isinstance(pid, OSError):
            raise pid
        return pid

    monkeypatch.setattr(inside.os, "fork", fork)
    pairs = [socket.socketpair() for _ in range(3)]
    record = protocol.SPAWN.pack(protocol.KIND_SOLUTION, 0, 0, 1000, 2**30, 2**20, 0)
    socket.send_fds(ours, [record * 3], [far.fileno() for _, far in pairs])
    zygote._spawn()
    for near, far in pairs:
        far.close()
        near.setblocking(False)
    assert list(zygote.children) == [101]
    with pytest.raises(BlockingIOError):
        pairs[0][0].recv(1)
    said = [protocol.EXIT.unpack(near.recv(64)) for near, _ in pairs[1:]]
    assert [(reason, number) for *_, reason, number in said] == [(protocol.REASON_SPAWN_FAILED, 28), (protocol.REASON_SPAWN_FAILED, 11)]
    assert sorted(zygote.slots) == [1, 2]


def test_spares_are_asked_for_together_and_each_is_another_process() -> None:
    with Sandbox(SandboxConfig(timeout_s=5)) as box:
        zygote, sent = box._common, []
        if box.grade not in ("strong", "strongest"):
            pytest.skip("spares are for strong sandboxes only")
        send = zygote._send
        zygote._send = lambda wishes, limits: (sent.append(len(wishes)), send(wishes, limits))[1]  # type: ignore[method-assign]
        limits = Limits(5, 2**29, 2**20)
        zygote.prepare(limits, False)
        zygote.prepare(limits, False)
        assert sent == [zygote.spares] == [4]
        zygote.prepare(limits, True)
        assert sent == [4, 4]  # two pairs
        pids = set()
        for _ in range(4):
            hatched, _ = zygote.take(limits, False)
            number = protocol.pack(1, protocol.ASK, {"preamble": "", "code": "import os", "entry": None})
            hatched.channel.sendall(number + protocol.pack(2, protocol.ASK, {"op": "eval", "x": "os.getpid()"}))
            frames = b""
            while frames.count(b'"v":') < 1:
                frames += hatched.channel.recv(4096)
            pids.add(frames.split(b'"v":')[1])
            hatched.close()
        assert len(pids) == 4
        assert sent == [4, 4]


SEEN = """
import os, sys
def seen():
    out = []
    for folder in sys.path:
        for name in ("site-packages", "dist-packages"):
            try:
                out += os.listdir(os.path.join(folder, name))
            except OSError:
                pass
    return out
"""


@LINUX
@pytest.mark.parametrize("without", [set(), {"mounts"}, {"landlock"}], ids=lambda value: "without " + "+".join(sorted(value)))
def test_installed_packages_cannot_be_seen(without: set[str]) -> None:
    """Covered by an empty file system where mounts can be had, refused by Landlock where not."""
    lines = subprocess.run([interpreter(), "-I", "-S", "-c", SEEN + "print(len(seen()))"], capture_output=True, text=True, check=True).stdout
    if int(lines) == 0:
        pytest.skip("this interpreter has no packages of its own")
    with Sandbox(_without=frozenset(without | {"bubblewrap"})) as box:
        layers = box.describe()["layers"]
        if not (layers["private_mounts"] or layers["landlock"]):
            pytest.skip("neither layer can be had here")
        result = box.evaluate(SEEN, "seen()")
        assert (result.actual, result.error) == ("[]", None)


@pytest.mark.parametrize("payload", [b"", b"{", b"[1] ", b" 1", b"1 2", b"[1]x", b"'a'", b"\xff", b"nul"])
def test_a_frame_is_one_json_text_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(ValueError):
        protocol.parse(payload)


@pytest.mark.parametrize("value", [None, True, 3, -0.5, "a\n\u20ac\ud800", [], {"a": [1, {"b": None}]}, float("inf")])
def test_a_frame_comes_back(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = protocol.pack(7, protocol.ASK, value)
    assert protocol.FRAME.unpack(frame[: protocol.FRAME.size]) == (len(frame) - protocol.FRAME.size, 7, protocol.ASK)
    assert protocol.parse(frame[protocol.FRAME.size :]) == value
    monkeypatch.setattr(protocol, "_chunks", protocol._encoder.iterencode)  # an interpreter without the compiled encoder
    assert protocol.pack(7, protocol.ASK, value) == frame


@pytest.mark.parametrize(("over", "most"), [(False, 2), (True, 4)])
def test_a_task_that_is_over_holds_no_worker(over: bool, most: int) -> None:
    """Two workers: programs whose end alone is awaited let others start, up to as many again."""
    live: list[int] = []
    seen: list[int] = []

    def task(job: int) -> Task[int]:
        live.append(job)
        seen.append(len(live))
        reader, writer = os.pipe()
        os.write(writer, b"x")
        yield Wait(((reader, READ),), 5.0)
        yield Wait((), 0.01, over)
        live.remove(job)
        os.close(reader)
        os.close(writer)
        return job

    assert list(run_all(range(12), task, 2)) == list(range(12))
    assert max(seen) == most


@LINUX
def test_no_two_zygotes_have_the_same_uids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "NAME", f"\0rlaif-test-{os.getpid()}-")
    claims = [uids.claim() for _ in range(protocol.UID_BLOCKS)]
    assert sorted(block for block, _ in claims) == list(range(protocol.UID_BLOCKS))
    assert uids.claim()[1] is None  # all are taken
    for name in (3, 60):
        block, taken = claims[name]
        assert taken is not None
        taken.close()
        claims[name] = uids.claim()
        assert claims[name][0] == block
    for _, taken in claims:
        assert taken is not None
        taken.close()
    zygotes = [Zygote() for _ in range(2)]
    assert len({zygote.start()["first_uid"] for zygote in zygotes}) == 2
    held = [zygote.claim for zygote in zygotes]
    zygotes[0].lost(1)
    zygotes[1].close()
    assert all(taken is not None and taken.fileno() == -1 for taken in held)
    assert zygotes[0].start()
    zygotes[0].close()
