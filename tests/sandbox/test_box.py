"""`Sandbox` end to end: outcomes, paths, crossings between the processes, streams, limits, infrastructure faults."""

# ruff: noqa: E501
from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rlaif.config import SandboxConfig
from rlaif.errors import SandboxUnavailable
from rlaif.sandbox import Job, Sandbox
from rlaif.sandbox import box as box_module
from rlaif.sandbox.inside import protocol
from rlaif.sandbox.inside.peer import Gone, Peer, Tampering
from rlaif.sandbox.zygotes import Zygote
from rlaif.types import Problem, TestCase


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(SandboxConfig(timeout_s=2)) as sandbox:
        yield sandbox


def problem(*tests: tuple[str, str] | str, entry: str | None = "f", form: str = "call", **more) -> Problem:
    cases = tuple(TestCase("graded", test, "", "code") if isinstance(test, str) else TestCase("graded", *test, form) for test in tests)  # type: ignore[arg-type]
    return Problem("p", "", cases, entry, **more)


ONE = problem(("f(1)", "2"), ("f(2)", "3"))
SAY = "import os, struct\ndef say(n, kind=2):\n    b = b'{\"v\":2}'\n    os.write(3, struct.pack('<IIB', len(b), n, kind) + b)\n"
RIGHT = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    ("code", "outcome", "failure", "passed"),
    [
        (RIGHT, "scored", None, 2),
        ("def f(x): return 2", "scored", None, 1),
        ("def f(x: return", "policy_failure", "syntax_error", 0),
        ("def g(x): return 1", "policy_failure", "missing_entry_point", 0),
        ("f = 3", "policy_failure", "missing_entry_point", 0),
        ("1 / 0", "policy_failure", "load_error", 0),
        ("def f(x):\n    while True: pass", "scored", "timeout", 0),
        ("def f(x): return [0] * 10**10", "scored", "memory", 0),
        ("import os\ndef f(x): os._exit(0)", "scored", "early_exit", 0),
        ("import sys\nsys.exit()", "policy_failure", "early_exit", 0),
        ("import os\nos._exit(0)", "policy_failure", "early_exit", 0),
        ("import ctypes\nctypes.string_at(0)", "policy_failure", "crash", 0),
        ("x = [0] * 10**10\ndef f(x): return x + 1", "policy_failure", "memory", 0),
        ("import sys\ndef f(x): sys.exit()", "scored", None, 0),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "scored", "crash", 0),
        ("def f(x): return 'x' * 10**7", "scored", "too_large", 0),
        ("def f(x):\n    if x == 2: raise ValueError('no')\n    return 2", "scored", None, 1),
        (SAY + "def f(x):\n    say(5)\n    return x + 1", "policy_failure", "tampering", 0),
        (SAY + "say(0)\ndef f(x): return x + 1", "policy_failure", "tampering", 0),
        (SAY + "def f(x):\n    if x == 2: say(0, 3)\n    return x + 1", "policy_failure", "tampering", 0),
        ("import os\ndef f(x):\n    os.write(3, b'y' * 50)\n    return 2", "policy_failure", "tampering", 0),
    ],
)
def test_outcomes(box: Sandbox, code: str, outcome: str, failure: str | None, passed: int) -> None:
    report = box.run(ONE, code)
    assert (report.outcome, report.failure, report.passed, report.total) == (outcome, failure, passed, 2), report
    assert report.grade == box.grade
    assert report.path == "lowered"


def test_what_never_loads_was_never_tested() -> None:
    """Whatever ends a program before it has an entry point is the policy's failure; afterwards it is scored."""
    with Sandbox(SandboxConfig(timeout_s=0.3)) as quick:
        for ending, failure in (
            ("while True: pass", "timeout"),
            ("import time; time.sleep(1000)", "timeout"),
            ("import os; os.kill(os.getpid(), 9)", "crash"),
        ):
            loading = quick.run(ONE, f"{ending}\ndef f(x): return x + 1")
            running = quick.run(ONE, f"def f(x):\n    {ending}")
            assert (loading.outcome, loading.failure, loading.passed) == ("policy_failure", failure, 0), loading
            assert (running.outcome, running.failure, running.passed) == ("scored", failure, 0), running


FRAMES = """
import os, struct
def frame(n, kind, body=b'{"v":2}'):
    return struct.pack('<IIB', len(body), n & 0xFFFFFFFF, kind) + body
def number():
    import sys
    frame = sys._getframe()
    while "number" not in frame.f_locals or "request" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["number"]
real = os.write
"""
LIES = {
    "unsolicited, before the first question": "os.write(3, frame(7, 2))\ndef f(x): return x + 1",
    "unsolicited, beside an answer": "def f(x):\n    real(3, frame(7, 2))\n    return x + 1",
    "unsolicited, after the last answer": "import threading\ndef f(x):\n    if x == 2: os.write = lambda fd, b: (real(fd, b), real(fd, frame(7, 2)))[0]\n    return x + 1",
    "its own question answered twice": "def f(x):\n    real(3, frame(number(), 2, b'{\"v\":%d}' % (x + 1)))\n    return x + 1",
    "the answer before last again": "seen = []\ndef write(fd, b):\n    seen.append(bytes(b))\n    return real(fd, seen[-2]) and len(b) if len(seen) > 1 else real(fd, b)\ndef f(x):\n    os.write = write\n    return x + 1",
    "two answers in one, in the wrong order": "seen = []\ndef write(fd, b):\n    seen.append(bytes(b))\n    real(fd, frame(1, 2) + bytes(b))\n    return len(b)\ndef f(x):\n    os.write = write\n    return x + 1",
    "the right number, the wrong kind": "def f(x):\n    real(3, frame(number(), 4))\n    return x + 1",
    "a number of its own choice": "def f(x):\n    real(3, frame(number() + 1, 2))\n    return x + 1",
    "the right answer under another number": "def write(fd, b):\n    os.write = real\n    real(fd, frame(7, 2, bytes(b)[9:]))\n    return len(b)\ndef f(x):\n    os.write = write\n    return x + 1",
    "the first answer again in place of the second": "seen = []\ndef write(fd, b):\n    os.write = real\n    seen.append(bytes(b))\n    real(fd, seen[0])\n    return len(b)\ndef f(x):\n    os.write = write\n    return x + 1",
    "BYE before its time": "def f(x):\n    real(3, frame(0, 3, b'{}'))\n    return x + 1",
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("lowered", [True, False], ids=["lowered", "opaque"])
def test_frames_out_of_turn_are_tampering(box: Sandbox, name: str, lowered: bool) -> None:
    """Unsolicited, doubled or reordered frames: no test passes, whatever was answered in turn before."""
    one = ONE if lowered else problem("x = f(1)\nassert x == 2\nx = f(2)\nassert x == 3", "assert [f(5)] == [6]")
    report = box.run(one, FRAMES + LIES[name])
    assert (report.outcome, report.failure, report.passed) == ("policy_failure", "tampering", 0), report


@pytest.mark.parametrize(("last_words", "end"), [([], Gone), ([protocol.pack(0, protocol.BYE, {})], Tampering), ([b"\x01"], Gone)])
def test_a_solution_that_hung_up_is_gone_unless_it_had_spoken_unasked(last_words: list[bytes], end: type[BaseException]) -> None:
    """The test child asks a solution that has ended already: how soon it ended must not decide what it is called."""
    ours, its = socket.socketpair()
    for words in last_words:
        its.sendall(words)
    its.close()
    peer = Peer(ours.detach(), False)
    with pytest.raises(end):
        peer.ask({"op": "call"})
    os.close(peer.channel.fd)


def test_question_numbers_cannot_be_foreseen(box: Sandbox) -> None:
    code = FRAMES + "def f(x): return number()"
    numbers = [int(box.run(problem((f"f({index})", "0")), code).results[0].actual or 0) for index in range(12)]
    assert len(set(numbers)) == 12
    assert max(numbers) > 2**28
    assert sorted(numbers) != numbers


def test_a_runaway_is_dead_in_time(box: Sandbox) -> None:
    start = time.perf_counter()
    report = box.run(ONE, "def f(x):\n    while True: pass")
    assert report.failure == "timeout"
    assert report.cpu_s == pytest.approx(2, abs=0.25)
    assert time.perf_counter() - start < 20 * 2 + 0.5  # wall: a busy machine gives the program less than a core


def test_report_says_what_and_where(box: Sandbox) -> None:
    report = box.run(ONE, "def f(x):\n    print('hello')\n    return [1, 2][x]\n")
    assert report.stdout == "hello\nhello\n"
    assert report.results[0].actual == "2"
    assert report.results[1].error == "IndexError: list index out of range (line 3 of the solution)"
    assert 0 < report.cpu_s < 1


def test_roles(box: Sandbox) -> None:
    tests = (TestCase("shown", "f(1)", "2"), TestCase("graded", "f(2)", "3"), TestCase("held_out", "f(3)", "5"))
    mixed = Problem("p", "", tests, "f")
    assert [box.run(mixed, RIGHT, roles).passed for roles in (("shown",), ("graded",), ("held_out",), ("shown", "graded", "held_out"))] == [
        1,
        1,
        0,
        2,
    ]
    assert box.run(Problem("p", "", (), "f"), RIGHT).total == 0
    assert not box.run(Problem("p", "", (), "f"), RIGHT).all_passed


CROSSINGS = {
    "in-place mutation": ("def f(x):\n    x.sort()\n", "a = [3, 1, 2]\ncandidate(a)\nassert a == [1, 2, 3]"),
    "nested mutation keeps identity": ("def f(x):\n    x['k'].append(1)\n", "inner = []\nd = {'k': inner}\ncandidate(d)\nassert inner == [1] and d['k'] is inner"),
    "generator": ("def f(n):\n    for i in range(n): yield i\n", "assert list(candidate(3)) == [0, 1, 2]\ng = candidate(2)\nassert next(g) == 0"),
    "endless generator": ("def f():\n    k = 0\n    while True:\n        yield k\n        k += 1\n", "import itertools\nassert list(itertools.islice(candidate(), 3)) == [0, 1, 2]"),
    "callable argument": ("def f(g, xs): return [g(x) for x in xs]\n", "seen = []\nassert candidate(lambda x: seen.append(x) or x * 2, [1, 2]) == [2, 4]\nassert seen == [1, 2]"),
    "callable result": ("def f(n): return lambda x: x + n\n", "assert candidate(3)(4) == 7"),
    "decorator": ("def f(g):\n    def inner(*a): return g(*a) + 1\n    return inner\n", "@candidate\ndef h(x):\n    return x * 2\nassert h(3) == 7"),
    "iterator argument": ("def f(it): return sum(it)\n", "assert candidate(iter([1, 2])) == 3\nassert candidate(x * x for x in range(3)) == 5"),
    "exception by type": ("def f(x): raise KeyError(x)\n", "try:\n    candidate(1)\nexcept KeyError:\n    pass\nelse:\n    raise AssertionError"),
    "context manager": ("import contextlib\n@contextlib.contextmanager\ndef f(): yield 3\n", "with candidate() as x:\n    assert x == 3"),
    "own equality among its own objects": ("class f:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n", "assert candidate(1) == candidate(1)\nassert not candidate(1) == candidate(2)"),
    "module of the solution": ("def f(x): return x\ndef g(x): return -x\n", "from solution import f, g\nassert f(1) == 1 and g(1) == -1"),
    "plain test functions": ("def f(x): return x\n", "def test_one():\n    assert f(1) == 1\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", CROSSINGS)
def test_crossings(box: Sandbox, name: str) -> None:
    code, test = CROSSINGS[name]
    wrapped = "def check(candidate):\n" + "".join(f"    {line}\n" for line in test.splitlines()) if "def test_" not in test else test
    report = box.run(problem(wrapped), code)
    assert report.all_passed, report
    assert report.path == "opaque"


ASYNC = "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x + 1\n"
PRINTS = "def f(x):\n    print('got', x)\n    return x + 1\n"
CAPTURE = "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f(1)\n"


@pytest.mark.parametrize(
    ("test", "code", "passed"),
    [
        ("if __name__ == '__main__':\n    assert f(1) == 2", RIGHT, True),
        ("if __name__ == '__main__':\n    assert f(1) == 3", RIGHT, False),
        (
            "import unittest\nclass A(unittest.TestCase):\n    def test_it(self): self.assertEqual(f(1), 2)\nif __name__ == '__main__':\n    unittest.main()",
            RIGHT,
            True,
        ),
        (
            "import unittest\nclass A(unittest.TestCase):\n    def test_it(self): self.assertEqual(f(1), 3)\nunittest.main(argv=['x'], exit=False)",
            RIGHT,
            False,
        ),
        ("class TestF:\n    def setup_method(self): self.x = 1\n    def test_it(self): assert f(self.x) == 2", RIGHT, True),
        ("class TestF:\n    def setup_method(self): self.x = 1\n    def test_it(self): assert f(self.x) == 3", RIGHT, False),
        ("async def test_it():\n    assert await f(1) == 2", ASYNC, True),
        ("async def test_it():\n    assert await f(1) == 3", ASYNC, False),
        ("async def check(candidate):\n    assert await candidate(1) == 3", ASYNC, False),
        ("import asyncio\nassert asyncio.run(f(1)) == 2", ASYNC, True),
        ("import asyncio\nassert asyncio.run(f(1)) == 3", ASYNC, False),
        (CAPTURE + "assert out.getvalue() == 'got 1\\n'", PRINTS, True),
        (CAPTURE + "assert out.getvalue() == 'got 2\\n'", PRINTS, False),
        (CAPTURE + "assert out.getvalue() == 'got 1\\n'", PRINTS.replace("print(", "print('x'); print("), False),
    ],
)
def test_whatever_its_form_a_test_is_run(box: Sandbox, test: str, code: str, passed: bool) -> None:
    report = box.run(problem(test), code)
    assert (report.outcome, report.path, report.all_passed) == ("scored", "opaque", passed), report


def test_stateful_class_on_every_path(box: Sandbox) -> None:
    code = "class Stack:\n    def __init__(self): self.xs = []\n    def push(self, x): self.xs.append(x)\n    def pop(self): return self.xs.pop()\n    def __len__(self): return len(self.xs)\n"
    lowered = problem(("s = Stack()\ns.push(1)\ns.push(2)\ns.pop()", "2"), entry="Stack")
    opaque = problem("s = Stack()\ns.push(1)\nassert len(s) == 1 and isinstance(s, Stack)\nassert s.pop() == 1 and not s", entry="Stack")
    vector = "class V:\n    def __init__(self, x): self.x = x\n    def __mul__(self, k): return V(self.x * k)\n    def __eq__(self, o): return self.x == o.x\n"
    assert box.run(lowered, code).all_passed
    assert box.run(opaque, code).all_passed
    assert box.run(problem("assert V(2) * 3 == V(6)\nassert not V(2) * 3 == V(7)", entry="V", signature="class V:"), vector).all_passed


def test_foreign_answers_are_run_again_in_the_test_child(box: Sandbox) -> None:
    assert box.run(problem("assert f(1)"), "import re\ndef f(x): return re.match('a', 'a')\n").all_passed


def test_preamble_belongs_to_both_sides(box: Sandbox) -> None:
    helper = problem("assert twice(f(1)) == 4", preamble="def twice(x):\n    return 2 * x\n")
    assert box.run(helper, "def f(x): return twice(x)\n").all_passed
    assert not box.run(helper, "def twice(x): return 4\ndef f(x): return 0\n").all_passed


POINT = "from dataclasses import dataclass\n@dataclass(frozen=True{})\nclass Point:\n    x: int\n    inner: object = None\n"
BOX = "class Box:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return isinstance(other, Box) and self.x == other.x\n"


@pytest.mark.parametrize(
    ("preamble", "code", "test", "passed"),
    [
        (POINT.format(""), "def f(x): return Point(x)", "assert f(1) == Point(1)", True),
        (POINT.format(", slots=True"), "def f(x): return [Point(x, Point(2))]", "assert f(1) == [Point(1, Point(2))]", True),
        (POINT.format(""), "def f(x): return Point(x, Point(3))", "assert f(1) == Point(1, Point(2))", False),
        (POINT.format(""), "def f(x): return Point(x)", "assert f(1) != Point(2) and not f(1) != Point(1)", True),
        (BOX, "def f(x): return Box(x)", "assert f(1) == Box(1)", True),
        (BOX, "def f(x): return Box(x + 1)", "assert f(1) == Box(1)", False),
        (BOX, "class Box:\n    def __eq__(self, other): return True\ndef f(x): return Box()", "assert f(1) == Box(1)", False),
        (
            BOX,
            "class Liar:\n    def __eq__(self, other): return True\nLiar.__name__ = 'Box'\ndef f(x): return Liar()",
            "assert f(1) == Box(1)",
            False,
        ),
        (
            "class Box:\n    def same(self, other): return self.x == other.x\n    def __eq__(self, other): return other.same(self)\n",
            "def f(x):\n    box = Box()\n    box.same = lambda other: True\n    return box",
            "box = Box()\nbox.x = 1\nassert f(1) == box or box == f(1)",
            False,
        ),
        (BOX, "def f(x): return Box(x)", "assert Box(1) == f(1) and Box(1) != f(2) and [Box(1)] == [f(1)]", True),
        (BOX, "def f(x): return None", "assert not Box(1) == f(1)", True),
        (BOX, "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Box(Any())", "assert f(1) == Box(1)", False),
    ],
)
def test_objects_of_the_preambles_classes_are_compared_by_the_test(box: Sandbox, preamble: str, code: str, test: str, passed: bool) -> None:
    assert box.run(problem(test, preamble=preamble), code).all_passed is passed


@pytest.mark.parametrize(
    ("code", "passed"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", 1),
        ("import sys\nfor line in sys.stdin: print(sum(map(int, line.split())), end='  \\n\\n')\nsys.exit(0)", 1),
        ("import sys\nsys.stdout.buffer.write(b'7')", 1),
        ("import os\nos.write(1, b'7\\n')\nos._exit(0)", 1),
        ("def main():\n    print(7)\nif __name__ == '__main__':\n    main()", 1),
        ("print(7)\nraise ValueError", 0),
        ("print(8)", 0),
        ("print(7); import sys; sys.exit(3)", 0),
    ],
)
def test_standard_input_and_output(box: Sandbox, code: str, passed: int) -> None:
    report = box.run(problem(("3 4\n", "7"), entry=None, form="stdio"), code)
    assert (report.outcome, report.passed, report.total) == ("scored", passed, 1), report


def test_standard_output_flood_and_wait(box: Sandbox) -> None:
    quick = SandboxConfig(timeout_s=0.5)
    with Sandbox(quick) as small:
        one = problem(("1\n", "1"), entry=None, form="stdio")
        assert small.run(one, "while True: print('x' * 10000)").passed == 0
        start = time.perf_counter()
        assert "wall" in (small.run(one, "import time\ntime.sleep(100)").results[0].error or "")
        assert time.perf_counter() - start < 3


def test_evaluate(box: Sandbox) -> None:
    assert box.evaluate(RIGHT, "f(41)").actual == "42"
    assert "ZeroDivisionError" in (box.evaluate(RIGHT, "f(1) / 0").error or "")
    assert "SyntaxError" in (box.evaluate(RIGHT, "f(").error or "")
    assert "timeout" in (box.evaluate("def f():\n    while 1: pass", "f()").error or "")
    assert box.evaluate("", "g(1)", preamble="def g(x): return x").actual == "1"


def test_run_many_streams_in_order_and_reads_ahead_little() -> None:
    taken = 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for index in range(200):
            taken += 1
            yield Job(problem(("f(1)", str(index))), f"def f(x): return {index}")

    with Sandbox(SandboxConfig(workers=2)) as sandbox:
        for index, report in enumerate(sandbox.run_many(jobs())):
            assert report.all_passed
            assert taken <= index + 1 + 8


def test_threads_share_one_sandbox(box: Sandbox) -> None:
    passed: list[bool] = []

    def work() -> None:
        passed.extend(report.all_passed for report in box.run_many(Job(ONE, RIGHT) for _ in range(20)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed == [True] * 80


def test_nothing_is_held_after_many_programs(box: Sandbox) -> None:
    def held() -> tuple[int, int]:
        process = box._common.process
        assert process is not None
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{process.pid}/fd"))

    list(box.run_many(Job(ONE, RIGHT) for _ in range(10)))
    time.sleep(0.3)  # the zygote tidies up after it has reported
    before = held()
    list(box.run_many(Job(ONE, code) for code in [RIGHT, "import os\nos._exit(1)", "def f(", "def f(x): raise SystemExit"] * 10))
    until = time.monotonic() + 5
    while held() != before and time.monotonic() < until:
        time.sleep(0.01)
    assert held() == before


def test_zygote_killed_at_random_changes_no_verdict() -> None:
    count = int(os.environ.get("RLAIF_ZYGOTE_KILLS", "300"))  # the issue asks for 10,000: RLAIF_ZYGOTE_KILLS=10000
    codes = [(RIGHT, 2), ("def f(x): return 2", 1), ("def f(x): raise ValueError", 0)]
    kills: list[int] = []
    chance = random.Random(7)
    with Sandbox() as sandbox:

        def kill() -> None:
            process = sandbox._common.process
            if process is not None and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills.append(process.pid)

        reports = []
        after = 5
        for report in sandbox.run_many(Job(ONE, codes[index % 3][0]) for index in range(count)):
            reports.append(report)
            if len(reports) >= after:  # by programs and not by the clock: a slow machine must not kill every zygote as it starts
                threading.Timer(chance.uniform(0, 0.01), kill).start()
                after = len(reports) + chance.randrange(2, 60)
    assert len(kills) >= count // 60
    assert [(report.outcome, report.passed) for report in reports] == [("scored", codes[index % 3][1]) for index in range(count)]


def test_a_program_that_always_kills_its_zygote_is_to_blame(monkeypatch: pytest.MonkeyPatch, box: Sandbox) -> None:
    real = Zygote.take

    def take(self: Zygote, *args, **kwargs):
        taken = real(self, *args, **kwargs)
        if self.tainted:  # type: ignore[attr-defined]
            assert self.process is not None
            self.process.kill()
        return taken

    monkeypatch.setattr(Zygote, "take", take)
    monkeypatch.setattr(Zygote, "tainted", True, raising=False)
    with Sandbox() as sandbox:
        assert sandbox.run(ONE, RIGHT).outcome == "infra_failure"  # even the harmless program cannot run
        monkeypatch.setattr(box_module.Sandbox, "_harmless_survives", _yes)
        report = sandbox.run(ONE, RIGHT)
    assert (report.outcome, report.failure, report.passed, report.total) == ("policy_failure", "tampering", 0, 2)


def _yes(self: Sandbox):
    return True
    yield


BURN = """
import time
def f(x):
    while time.process_time() < x: pass
    return x
"""


def test_honest_work_does_not_time_out_on_a_busy_machine() -> None:
    """Two thirds of the CPU limit is fine however long it takes: here over three limits of wall time, with six spinning programs a core."""
    count = 6 * (os.cpu_count() or 1)
    burn = problem(("f(0.2)", "0.2"))
    with Sandbox(SandboxConfig(timeout_s=30, workers=count)) as spinners, Sandbox(SandboxConfig(timeout_s=0.3)) as honest:
        running = spinners.run_many(Job(problem(("f(30)", "0")), BURN) for _ in range(count + 1))
        spinning = threading.Thread(target=lambda: next(running, None))
        spinning.start()
        time.sleep(0.5)
        start = time.perf_counter()
        reports = list(honest.run_many(Job(burn, BURN) for _ in range(2)))
        took = time.perf_counter() - start
        sleeper = honest.run(ONE, "import time\ndef f(x): time.sleep(1000)")
        spinners._common.close()  # ends them all
        spinners._numpy.close()
        spinners._attempt = _nothing  # type: ignore[method-assign]
        spinning.join()
    assert all(report.all_passed for report in reports), [(report.failure, report.message) for report in reports]
    assert took > 3 * 0.3, "nothing was shown: the machine has idle cores"
    assert sleeper.failure == "timeout"


def _nothing(*_: object):
    raise SandboxUnavailable("over", "", "")
    yield


def test_a_caller_that_takes_its_time_fails_nobody() -> None:
    """An optimiser step between two results is not the programs' waiting time."""
    with Sandbox(SandboxConfig(timeout_s=0.2, workers=2)) as sandbox:
        reports = []
        for report in sandbox.run_many(Job(ONE, RIGHT) for _ in range(6)):
            reports.append(report)
            time.sleep(0.8)
    assert all(report.all_passed for report in reports), [(report.failure, report.message) for report in reports]


def test_sleeping_is_not_extended_by_a_crowd_of_threads() -> None:
    """Threads that wake for nothing are ready now and then, but that does not buy their program the wall time of a busy machine."""
    crowd = "import threading, time\ndef nap():\n    while True: time.sleep(0.05)\ndef f(x):\n    for _ in range(30): threading.Thread(target=nap, daemon=True).start()\n    nap()"
    with Sandbox(SandboxConfig(timeout_s=0.3)) as sandbox:
        start = time.perf_counter()
        assert sandbox.run(ONE, crowd).failure == "timeout"
        assert time.perf_counter() - start < 20 * 0.3 + 1


@pytest.mark.parametrize("end", ["while True: pass", "import os; os._exit(0)", "import time; time.sleep(60)", "x = [0] * 10**12"])
def test_a_wrong_answer_ends_its_test(box: Sandbox, end: str) -> None:
    """Its second question went out with its first all the same, and what that does to the program is not the program's."""
    code = f"def solve(n):\n    if n == 2:\n        {end}\n    return 0 if n == 1 else n\n"
    tests = ("assert solve(1) == 1\nassert solve(2) == 2", "assert solve(5) == 5\nassert solve(6) == 6", "assert solve(7) == 8")
    problem = Problem("idle", "", tuple(TestCase("graded", test, "", "code") for test in tests), "solve", imported=True)
    report = box.run(problem, code)
    assert (report.outcome, report.failure, report.path) == ("scored", None, "lowered")
    assert [result.passed for result in report.results] == [False, True, False]
    assert report.results[0].actual == "0" or "gave 0" in (report.results[0].error or "")


def test_an_error_ends_its_test_and_no_other(box: Sandbox) -> None:
    code = "seen = []\ndef solve(n):\n    seen.append(n)\n    return seen if n == 9 else 1 // n\n"
    tests = ("assert solve(1) == 1\nassert solve(0) == 0\nassert solve(-1) == -1", "assert solve(9) == [1, 0, 9]")
    problem = Problem("error", "", tuple(TestCase("graded", test, "", "code") for test in tests), "solve", imported=True)
    assert [result.passed for result in box.run(problem, code).results] == [False, True]
