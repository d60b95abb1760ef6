"""The trusted client's memory, descriptors and files are out of a program's reach, although the client stays an ordinary process.

The client lives in the trainer, so it is not made non-dumpable: that would hide `/proc/self` from it, take core dumps, py-spy and gdb
away from its user, and break what ranks share by pidfd_getfd or process_vm_readv. The zygote and its children are non-dumpable,
and the client is protected by what they may not do: each layer below is tried with the others switched off.
"""

from __future__ import annotations

import os
import sys

import pytest

from rlaif.config import SandboxConfig
from rlaif.sandbox import Sandbox

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
REACH = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
PTRACE, READV, WRITEV, KCMP = (101, 310, 311, 312) if platform.machine() == "x86_64" else (117, 270, 271, 272)
SECRET = b"what the client holds"

class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

def system(number, *args):
    return libc.syscall(number, *[ctypes.c_long(arg) if type(arg) is int else arg for arg in args]) >= 0

def opened(path):
    try:
        os.listdir(path) if path.endswith("fd") else open(path, "rb").read(1)
    except OSError as error:
        return isinstance(error, IsADirectoryError)
    return True

def reach(pid, address):
    got = [name for name in ("mem", "environ", "maps", "fd", "auxv", "cwd/.", "root/.") if opened(f"/proc/{pid}/{name}")]
    buffer = ctypes.create_string_buffer(len(SECRET))
    here, there = Vector(ctypes.addressof(buffer), len(SECRET)), Vector(address, len(SECRET))
    for name, number in (("process_vm_readv", READV), ("process_vm_writev", WRITEV)):
        if system(number, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0):
            got.append(name)
    if system(PTRACE, 16, pid, 0, 0):
        got.append("ptrace")
    pidfd = libc.syscall(434, ctypes.c_long(pid), ctypes.c_long(0))
    if pidfd >= 0 and system(438, pidfd, 0, 0):
        got.append("pidfd_getfd")
    try:
        os.kill(pid, 0)
        got.append("kill")
    except OSError:
        pass
    return got
"""


@LINUX
@pytest.mark.parametrize(
    "without",
    [set(), {"bubblewrap"}, {"bubblewrap", "own_uid", "mounts"}, {"bubblewrap", "landlock"}, {"bubblewrap", "seccomp", "landlock"}],
    ids=lambda value: "without " + "+".join(sorted(value)),
)
def test_client_and_zygote_are_out_of_reach(without: set[str]) -> None:
    with Sandbox(SandboxConfig(timeout_s=3), _without=frozenset(without)) as box:
        layers = box.describe()["layers"]
        if not layers["own_uid"] and not (layers["seccomp"] and layers["landlock"]):
            pytest.skip("nothing is claimed at this grade for a program under the client's own uid")
        secret = b"what the client holds"
        address = id(secret) + bytes.__basicsize__ - 1
        assert box._common.process is not None
        for pid in (os.getpid(), box._common.process.pid):
            result = box.evaluate(REACH, f"reach({pid}, {address})")
            assert (result.actual, result.error) == ("[]", None)


@LINUX
def test_the_attempts_would_work_without_a_sandbox() -> None:
    """The test above can fail: the same attempts on this very process succeed."""
    scope: dict = {}
    exec(REACH, scope)
    secret = b"what the client holds"
    got = scope["reach"](os.getpid(), id(secret) + bytes.__basicsize__ - 1)
    assert {"environ", "maps", "fd", "kill"} <= set(got)


@LINUX
def test_the_trainers_own_process_is_left_as_it_was() -> None:
    import ctypes

    before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    with Sandbox():
        assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == before
