"""The red team's programs and the problem they are tried on. Text files: `## class`, then `#: name` and the code."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rlaif.types import Problem, TestCase

HERE = Path(__file__).parent
EXPECTED = {n: [n, n * n + 1, str(n) * 2] for n in range(100)}


class Program(NamedTuple):
    kind: str
    name: str
    code: str


def _read(path: Path) -> list[Program]:
    out: list[Program] = []
    kind, name, lines = path.stem, None, []

    def flush() -> None:
        if name is not None:
            out.append(Program(kind, name, "\n".join(lines) + "\n"))

    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("## ", "#: ")):
            flush()
            name, lines = None, []
            if line.startswith("## "):
                kind = line[3:]
            else:
                name = line[3:]
        elif name is not None:
            lines.append(line)
    flush()
    return out


def attacks(answers: str) -> list[Program]:
    """All attack programs; `answers` is the path of a world-readable file with the expected values."""
    indented = "\n".join(" " * depth + "if 1:" for depth in range(150)) + "\n" + " " * 150 + "pass\ndef solve(n): return 0"
    texts = {
        "@@ANSWERS@@": answers,
        "@@BRACKETS@@": "(" * 5000 + ")" * 5000,
        "@@ADDITIONS@@": "+".join(["1"] * 300_000),
        "@@NUL@@": "\0\ud800",
        "@@INDENT@@": indented,
    }
    out = []
    for path in sorted((HERE / "attacks").glob("*.txt")):
        for program in _read(path):
            code = program.code
            for mark, text in texts.items():
                code = code.replace(mark, text)
            out.append(program._replace(code=code))
    return out


def honest() -> list[Program]:
    return _read(HERE / "honest" / "programs.txt")


def _calls(*numbers: int) -> tuple[TestCase, ...]:
    return tuple(TestCase("graded", f"solve({n})", repr(EXPECTED[n])) for n in numbers)


PREAMBLE = "def norm(x):\n    return x\n"
SHOWN = TestCase("shown", "solve(2)", "[2, 5, '22']")
LOWERED = Problem("lowered", "", (SHOWN, *_calls(3, 11, 29)), "solve", preamble=PREAMBLE)
CHECK = """
def reference(n):
    return [n, n * n + 1, str(n) * 2]

def check(candidate):
    for n in (3, 11, 29):
        assert norm(candidate(n)) == norm(reference(n))
"""
OPAQUE = Problem(
    "opaque",
    "",
    (
        SHOWN,
        TestCase("graded", CHECK, "", "code"),
        TestCase("graded", "x = solve(7)\nassert isinstance(x, list) and len(x) == 3 and x[1] == 50", "", "code"),
        TestCase("graded", "assert abs(solve(5)[1] - 26.25) < 0.5", "", "code"),
        TestCase("graded", "sorted(map(str, solve(4))) == ['17', '4', '44']", "True"),
        TestCase(
            "graded",
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(solve(6), [6, 37, '66'])\n",
            "",
            "code",
        ),
        TestCase("graded", "x = solve(3)\nassert 10 in x and '33' in x and x", "", "code"),
    ),
    "solve",
    preamble=PREAMBLE,
    imported=True,
)
NUMBER = Problem(
    "number",
    "",
    (
        TestCase("graded", "assert abs(solve(5) - 2.75) < 1e-6", "", "code"),
        TestCase("graded", "def near(a, b):\n    return abs(a - b) < 1e-6\nassert near(solve(5), 2.75)", "", "code"),
        TestCase("graded", "import math\nassert math.isclose(solve(9), 4.75)", "", "code"),
        TestCase("graded", "assert not solve(3) != 1.75", "", "code"),
        TestCase("graded", "assert 1.7 < solve(3) < 1.8", "", "code"),
        TestCase("graded", "assert solve(3) in (1.75,)", "", "code"),
        TestCase("graded", "assert [1.75] == [solve(3)] and {1.75: 1}.get(solve(3)) and max(solve(3), 1.0) == 1.75", "", "code"),
    ),
    "solve",
    imported=True,
)
"""Predicates of a number (honest: n / 2 + 0.25), where an object that lies in its operators has its best chance."""
