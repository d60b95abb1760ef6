"""What the judge is shown: the program, and none of its author's words."""

from __future__ import annotations

import ast

import pytest

from rlaif.judge.sanitise import Refusal, Sanitised, escape_special, precheck, sanitise
from rlaif.problems import load_problems
from rlaif.types import Problem, TestCase

ADD = Problem("add", "Add two numbers a and b.", (TestCase("graded", "add(1, 2)", "3"),), entry_point="add", signature="def add(a, b):")


def shown(code: str, problem: Problem = ADD) -> str:
    result = sanitise(problem, code)
    assert isinstance(result, Sanitised), result
    return result.code


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("def add(a, b) return a", "syntax_error"),
        ("def sub(a, b):\n    return a - b", "missing_entry_point"),
        ("def add(a, b):\n    pass", "trivial"),
        ('def add(a, b):\n    """Adds."""\n    ...', "trivial"),
        ("def add(a, b):\n    return None", "trivial"),
        ("def add(a, b):\n    raise NotImplementedError", "trivial"),
        ("def add(a, b):\n    return 3", "trivial"),
        ("def add(a, b):\n    return a  # \u202eyes", "characters"),
        ("def add(a, b):\n    return a\u200b", "characters"),
        ("def add(a, b):\n    return a  # \U000e0041", "characters"),
        ("def add(a, b):\n    return a\n" + "#" * 50_000, "overlong"),
        ("def add(a, b):\n" + "".join(f"    a = a * {i} + b\n" for i in range(1000)) + "    return a", "overlong"),
        ("def add(a, b):\n    return " + "(" * 500 + "a" + ")" * 500, "syntax_error"),
        ("add = None", "trivial"),
        ("", "missing_entry_point"),
    ],
)
def test_refusals(code: str, kind: str) -> None:
    result = sanitise(ADD, code)
    assert isinstance(result, Refusal) and result.kind == kind, result


def test_precheck_accepts_every_way_to_define_the_entry_point() -> None:
    for code in (
        "def add(a, b):\n    return a + b",
        "add = lambda a, b: a + b",
        "from operator import add",
        "try:\n    import x\nexcept ImportError:\n    def add(a, b):\n        return a + b",
        "if True:\n    def add(a, b):\n        return a + b",
    ):
        assert precheck(ADD, code) is None, code
    assert precheck(ADD, "def f():\n    def add(a, b):\n        return a + b") is not None


def test_a_constant_is_no_answer_unless_the_reference_is_one() -> None:
    problem = Problem("k", "Return 3 whatever x is.", entry_point="f", reference="def f(x):\n    return 3")
    assert precheck(problem, "def f(x):\n    return 4") is None


def test_the_program_survives() -> None:
    """Canonical code computes what the original computes, on real-looking programs."""
    source = '''
from collections import Counter as C
import math as m

LIMIT = 3

class Box:
    size: int = 2
    def __init__(self, items: list[int]) -> None:
        self.items = items
    def area(self, *, scale=1):
        return sum(self.items) * scale * self.size

def helper(xs, sort_it=False):
    """Doc."""
    out = [x * 2 for x in xs if x % 2]
    if sort_it:
        out.sort(key=lambda q: -q)
    return out

def add(first, second):
    total = 0
    seen = {}
    for index, (x, y) in enumerate(zip(first, second)):
        try:
            total += x // y
        except ZeroDivisionError as error:
            total -= len(str(type(error)))
        seen[x] = seen.get(x, 0) + 1
    while total > 100:
        total -= LIMIT
    match len(first):
        case 0:
            return -1
        case n if n > 50:
            return n
    extra = helper(first, sort_it=True)
    return total + Box(extra).area(scale=2) + m.gcd(4, 6) + max(C(first).values()) + sum(seen.values()) + (y := 3) + y
'''
    problem = Problem("add", "Combine.", entry_point="add", signature="def add(first, second):")
    canonical = shown(source, problem)
    namespaces: list[dict] = [{}, {}]
    exec(source, namespaces[0])
    exec(canonical, namespaces[1])
    for arguments in (([1, 2, 3], [1, 0, 2]), ([5, 7, 9, 5], [1, 1, 1, 1]), ([], []), (list(range(60)), list(range(60)))):
        assert namespaces[0]["add"](*arguments) == namespaces[1]["add"](*arguments)
    assert "Doc" not in canonical and "helper" not in canonical and "total" not in canonical


def test_strings_of_the_problem_stay_and_prose_goes() -> None:
    problem = Problem(
        "fizz",
        "Return 'Fizz' for multiples of three, else the number.",
        (TestCase("graded", "f(5)", "'Buzz'"),),
        entry_point="f",
        signature="def f(n):",
    )
    code = (
        'def f(n):\n    if n % 3 == 0:\n        return "Fizz"\n    if n == 5:\n        return "Buzz"\n'
        '    if n in "aeiou, ":\n        return "a flawless reply"\n    return f"{n:>3} well done"'
    )
    text = shown(code, problem)
    assert "'Fizz'" in text and "'Buzz'" in text and "'aeiou, '" in text and ":>3" in text
    assert "flawless" not in text and "well done" not in text


def test_long_literals_are_elided() -> None:
    text = shown(f"def add(a, b):\n    table = {list(range(100))}\n    return table[a] + b + {10**40}")
    assert "..." in text and "99" not in text and "BIG_NUMBER" in text


def test_scripts_keep_their_output() -> None:
    problem = Problem("sum", "Read two numbers and print their sum.", (TestCase("graded", "1 2", "3", "stdio"),))
    assert "print(" in shown("a, b = map(int, input().split())\nprint(a + b)  # right", problem)


def test_special_tokens_are_broken_up() -> None:
    text = escape_special("x <|im_end|> [INST] </s> <unk9>", ("<unk9>",))
    assert not any(token in text for token in ("<|", "|>", "[INST]", "</s>", "<unk9>"))


def test_ascii_parseable_and_idempotent() -> None:
    code = 'def add(größe, b):\n    s = "é"\n    return größe + b + len(s)'
    text = shown(code)
    assert text.isascii() and ast.parse(text)
    assert shown(text) == text


def test_every_built_in_reference_is_shown_and_still_passes_its_tests() -> None:
    """A judge that is shown another program than the one written would be judging nothing."""
    problems = [problem for problem in load_problems("builtin") if problem.entry_point and problem.reference]
    assert len(problems) > 200
    broken = []
    for problem in problems:
        namespace: dict = {}
        exec(f"{problem.preamble}\n{shown(problem.reference or '', problem)}", namespace)
        for test in problem.tests:
            tree = ast.parse(test.input)
            scope = dict(namespace)
            exec(compile(ast.Module(tree.body[:-1], []), "setup", "exec"), scope)
            value = eval(compile(ast.Expression(tree.body[-1].value), "call", "eval"), scope)  # type: ignore[attr-defined]
            if value != ast.literal_eval(test.expected):
                broken.append((problem.id, test.input, value))
    assert not broken
