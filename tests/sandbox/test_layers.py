"""The layers: the filter as a program (both machines), fallbacks with layers switched off, an ordinary user, macOS's parts as data."""

# ruff: noqa: E501
from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaif.config import SandboxConfig
from rlaif.errors import SandboxUnavailable
from rlaif.sandbox import Sandbox, bubblewrap, seatbelt
from rlaif.sandbox.box import grade_of
from rlaif.sandbox.inside import seccomp, usage
from rlaif.types import Problem, TestCase

ONE = Problem("p", "", (TestCase("graded", "f(1)", "2"), TestCase("graded", "assert sorted(f(1) for _ in range(2)) == [2, 2]", "", "code")), "f")
RIGHT = "def f(x):\n    return x + 1\n"
ALLOW, EPERM, ENOSYS, KILL = seccomp.ALLOW, seccomp.DENY, seccomp.ERRNO | 38, seccomp.KILL
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def verdict(machine: str, name: str | int, *args: int, arch: int | None = None, pid: int = 77) -> int:
    """Interpret the filter for one call."""
    number = name if isinstance(name, int) else seccomp.numbers(machine)[name]
    data = struct.pack("<IIQ6Q", number, seccomp.ARCHES[machine] if arch is None else arch, 0, *args, *[0] * (6 - len(args)))
    accumulator = at = 0
    program = seccomp.program(machine, pid)
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:
                accumulator &= k
            case 0x15:
                at += yes if accumulator == k else no
            case 0x05:
                at += k
            case 0x35:
                at += yes if accumulator >= k else no
            case 0x06:
                return k
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter(machine: str) -> None:
    thread = 0x3D0F00
    assert verdict(machine, "read", 3) == verdict(machine, "exit_group") == verdict(machine, "futex") == verdict(machine, "openat") == ALLOW
    assert verdict(machine, "clone", thread) == ALLOW
    assert verdict(machine, "clone", 17) == verdict(machine, "clone", thread | 0x10000000) == verdict(machine, "clone", 0x4111) == EPERM
    assert verdict(machine, "clone3") == ENOSYS
    assert verdict(machine, "kill", 77) == verdict(machine, "tgkill", 77, 77, 9) == ALLOW
    assert (
        verdict(machine, "kill", 76)
        == verdict(machine, "kill", 0)
        == verdict(machine, "kill", 2**32 - 1)
        == verdict(machine, "tgkill", 1, 1)
        == EPERM
    )
    assert verdict(machine, "prlimit64", 0, 7) == verdict(machine, "prlimit64", 77, 7) == ALLOW
    assert verdict(machine, "prlimit64", 1, 7) == EPERM
    assert verdict(machine, "ioctl", 1, 0x5401) == ALLOW
    assert verdict(machine, "ioctl", 1, 0x5412) == EPERM  # TIOCSTI types into the terminal
    assert verdict(machine, "fcntl", 1, 1030) == ALLOW
    assert verdict(machine, "fcntl", 1, 8) == verdict(machine, "fcntl", 1, 10) == verdict(machine, "fcntl", 1, 1031) == EPERM
    assert verdict(machine, "socketpair", 1, 0x80001) == ALLOW
    assert verdict(machine, "socketpair", 1, 2) == verdict(machine, "socketpair", 16, 1) == EPERM
    assert verdict(machine, "read", arch=0x40000003) == KILL
    assert verdict(machine, 0x40000000) == EPERM
    assert {verdict(machine, number) for number in range(425, 435)} == {EPERM}  # io_uring, mounts, pidfd_open
    assert {verdict(machine, number) for number in range(440, 600)} == {EPERM}


FORBIDDEN = {
    "x86_64": {"socket": 41, "connect": 42, "bind": 49, "fork": 57, "vfork": 58, "execve": 59, "ptrace": 101, "setuid": 105, "chroot": 161, "mount": 165, "tkill": 200,
               "unshare": 272, "perf": 298, "setns": 308, "process_vm_readv": 310, "kcmp": 312, "seccomp": 317, "memfd": 319, "bpf": 321, "execveat": 322,
               "userfaultfd": 323, "shmget": 29, "msgget": 68, "chmod": 90, "prctl": 157, "keyctl": 250, "timer_create": 222, "symlink": 88, "link": 86, "mknod": 133},
    "aarch64": {"socket": 198, "connect": 203, "bind": 200, "execve": 221, "ptrace": 117, "setuid": 146, "chroot": 51, "mount": 40, "tkill": 130, "unshare": 97, "perf": 241,
                "setns": 268, "process_vm_readv": 270, "kcmp": 272, "seccomp": 277, "memfd": 279, "bpf": 280, "execveat": 281, "userfaultfd": 282, "shmget": 194,
                "msgget": 186, "fchmodat": 53, "prctl": 167, "keyctl": 219, "timer_create": 107, "symlinkat": 36, "linkat": 37, "mknodat": 33},
}  # fmt: skip


@pytest.mark.parametrize(("machine", "name"), [(machine, name) for machine, names in FORBIDDEN.items() for name in names])
def test_filter_forbids(machine: str, name: str) -> None:
    assert verdict(machine, FORBIDDEN[machine][name]) == EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_jumps_stay_inside(machine: str) -> None:
    program = seccomp.program(machine, 77)
    assert len(program) < 4096
    for at, (code, yes, no, k) in enumerate(program):
        assert max(yes, no) < 256
        assert code == 0x06 or at + 1 + (k if code == 0x05 else max(yes, no)) < len(program)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_allows_what_its_list_names_and_nothing_else(machine: str) -> None:
    table = seccomp.numbers(machine)
    plain = {table[name] for name in seccomp._NAMES.split() if name in table}
    looked_into = {table[name] for name in ("clone", "clone3", "kill", "tgkill", "prlimit64", "ioctl", "fcntl", "socketpair")}
    for number in [*range(600), 0x3FFFFFFF, 0x40000000, 0x40000001, 0x400001FF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]:
        if number not in looked_into:
            assert verdict(machine, number) == (ALLOW if number in plain else EPERM), number


def test_grades() -> None:
    strong = dict.fromkeys(("rlimits", "session", "no_new_privs", "non_dumpable", "seccomp", "landlock"), True)
    assert grade_of(strong) == "strong"
    assert grade_of(strong | {"bubblewrap": True}) == "strongest"
    assert (
        grade_of(strong | {"landlock": False}) == grade_of(strong | {"seccomp": False}) == grade_of({"rlimits": True, "bubblewrap": True}) == "base"
    )
    assert grade_of({"rlimits": True, "sandbox_exec": True}) == "medium"
    assert grade_of({}) == "none"


@LINUX
@pytest.mark.parametrize(
    ("without", "grade"),
    [
        ({"bubblewrap"}, "strong"),
        ({"bubblewrap", "own_uid", "mounts"}, "strong"),
        ({"bubblewrap", "mounts"}, "strong"),
        ({"bubblewrap", "landlock"}, "base"),
        ({"bubblewrap", "seccomp"}, "base"),
        ({"bubblewrap", "seccomp", "landlock", "own_uid", "mounts"}, "base"),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else value,
)
def test_without_some_layers_the_truth_is_told_and_programs_run(without: set[str], grade: str) -> None:
    with Sandbox(SandboxConfig(timeout_s=1), _without=frozenset(without)) as box:
        if box.describe()["layers"]["no_new_privs"] is False or grade_of(box._hello["layers"]) == "none":
            pytest.skip("this kernel has less")
        assert box.grade == grade
        assert box.run(ONE, RIGHT).all_passed
        assert box.run(ONE, "def f(x):\n    import xml.etree.ElementTree, colorsys\n    return x + 1").all_passed or grade == "base"
        leaver = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(1000)\n    os._exit(0)\ndef f(x): return 0"
        assert box.run(ONE, leaver).passed == 0
        assert box.run(ONE, RIGHT).all_passed
        process = box._common.process
        assert process is not None
        box._common.drop_spares()
        time.sleep(0.3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert children.read_text().split() == []


@LINUX
def test_claims_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that is there but does not hold is not claimed: with Landlock off nothing stops a read, and the probe sees it."""
    with Sandbox(_without=frozenset({"landlock", "bubblewrap"})) as box:
        assert box.describe()["layers"]["landlock"] is False
        assert box.evaluate("", "open('/etc/passwd').read(4)").error is None
    with Sandbox() as box:
        if box.grade in ("strong", "strongest"):
            assert "PermissionError" in (box.evaluate("", "open('/etc/passwd').read(4)").error or "") or "FileNotFound" in (
                box.evaluate("", "open('/etc/passwd').read(4)").error or ""
            )


def test_no_isolation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.sandbox.box.grade_of", lambda layers: "none")
    with pytest.raises(SandboxUnavailable, match="--unsafe-exec"):
        Sandbox()
    with Sandbox(SandboxConfig(unsafe_exec=True)) as box:
        assert box.grade == "none"


PROBE = "import pytest, subprocess; from rlaif.sandbox import zygotes; subprocess.check_call([zygotes.interpreter(), '-c', ''])"
AS_USER = """
import os, sys
from rlaif.config import SandboxConfig
from rlaif.sandbox import Sandbox
sys.path.insert(0, sys.argv[1])
from tests.sandbox.test_layers import ONE, RIGHT
from tests.sandbox.test_reach import REACH
from tests.redteam.programs import LOWERED, OPAQUE, attacks
with Sandbox(SandboxConfig(timeout_s=0.3, workers=3)) as box:
    assert box.grade in ("strong", "strongest"), box.describe()
    assert not box.describe()["layers"]["own_uid"]
    assert box.run(ONE, RIGHT).all_passed
    assert "Error" in box.evaluate("", "open('/etc/passwd')").error
    assert "Error" in box.evaluate("import os", "os.kill(os.getppid(), 9)").error
    assert box.evaluate(REACH, f"reach({os.getpid()}, {id(b'x')})").actual == "[]"
    wanted = ("files", "sockets", "killing others", "namespaces and exotic calls", "state for the next program", "forged frames and pass markers")
    programs = [program for program in attacks("/etc/hostname") if program.kind in wanted]
    for problem in (LOWERED, OPAQUE):
        for program, report in zip(programs, box.run_many((problem, program.code, ("graded",)) for program in programs)):
            assert report.outcome != "infra_failure" and report.passed == 0, (program, report)
    assert box._common.starts == 1
print("as an ordinary user", len(programs))
"""


@LINUX
@pytest.mark.skipif(sys.platform == "linux" and os.geteuid() != 0, reason="the whole suite runs as an ordinary user")
def test_as_an_ordinary_user() -> None:
    root = Path(__file__).parents[2]
    setpriv = shutil.which("setpriv")
    become = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups"] if setpriv else None
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "src"), *(path for path in sys.path if "site-packages" in path)])
    for python in (sys.executable, "/usr/bin/python3", f"/usr/bin/python3.{sys.version_info[1]}"):
        if become is None or not os.path.exists(python):
            continue
        if subprocess.run([*become, python, "-c", PROBE], env=environment, capture_output=True, cwd="/").returncode:
            continue
        done = subprocess.run([*become, python, "-c", AS_USER, str(root)], env=environment, capture_output=True, text=True, cwd="/", timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "as an ordinary user" in done.stdout
        return
    pytest.skip("no interpreter here that another user may run")


def test_bubblewrap_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(bubblewrap, "_works", lambda command, interpreter: True)
    monkeypatch.setattr(bubblewrap.sys, "platform", "linux")
    monkeypatch.setattr(bubblewrap.os, "geteuid", lambda: 1000)
    command = bubblewrap.prefix("/usr/bin/python3", ("/opt",)) or []
    assert {"--unshare-all", "--die-with-parent", "--new-session"} <= set(command)
    assert "--cap-add" not in command
    assert not any(path in command for path in ("/home", "/root", "/var", "/run", "/etc"))
    monkeypatch.setattr(bubblewrap.os, "geteuid", lambda: 0)
    assert "--unshare-net" in (bubblewrap.prefix("/usr/bin/python3", ()) or [])
    monkeypatch.setattr(bubblewrap, "_works", lambda command, interpreter: False)
    assert bubblewrap.prefix("/usr/bin/python3", ()) is None


def test_macos_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = struct.pack("<16s18Q", b"", 2_000_000, 1_000_000, 0, 0, 0, 0, 5, 7 * 2**20, *[0] * 10)
    assert usage.parse(raw + b"\0" * 50) == (0.003, 7 * 2**20)
    assert usage.parse(raw, 125, 3)[0] == pytest.approx(0.125)
    text = seatbelt.profile(("/opt/python",))
    assert "(deny default)" in text
    assert "(deny network*)" in text
    assert '(subpath "/opt/python")' in text
    assert "file-write*" not in text
    assert text.count("(") == text.count(")")
    with pytest.raises(ValueError):
        seatbelt.profile(('/a") (allow default',))
    monkeypatch.setattr(seatbelt.sys, "platform", "darwin")
    monkeypatch.setattr(seatbelt.shutil, "which", lambda name: "/usr/bin/sandbox-exec")
    assert (seatbelt.prefix(()) or [])[:2] == ["/usr/bin/sandbox-exec", "-p"]
    monkeypatch.setattr(usage.sys, "platform", "plan9")
    assert usage.reader() is None


@LINUX
def test_own_usage_is_read() -> None:
    reader = usage.reader()
    assert reader is not None
    cpu_s, _ = reader(os.getpid())
    assert 0 < cpu_s < 10_000
