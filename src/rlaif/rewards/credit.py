"""Partial credit for programs that fail some tests: only what the best constant answer would not have got."""

from __future__ import annotations

import ast
from collections import Counter

from rlaif.types import Difficulty, Problem, TestCase, TestReport

DIFFICULTY_SHARE: dict[Difficulty, float] = {"intro": 0.5, "easy": 0.6, "medium": 0.8, "hard": 1.0}
"""How much of the credit a problem of each difficulty pays: part of a hard problem is worth more than part of an easy one."""


def partial_credit(problem: Problem, tests: TestReport) -> float:
    """Credit in [0, 1]: the passed share of the tests beyond the constant answer's, times the problem's difficulty share.

    Each distinct expected value weighs the same however many tests share it, so `return True` gains nothing from nine tests that expect True,
    and a test whose answer is rare (a hard one to guess) weighs more. Never falls when one more test passes.
    """
    if not tests.results:
        return 0.0
    keys = [expected_key(result.test) for result in tests.results]
    counts = Counter(keys)
    weight = [1 / counts[key] for key in keys]
    total = sum(weight)
    passed = sum(w for w, result in zip(weight, tests.results, strict=True) if result.passed) / total
    constant = 1 / len(counts)  # the best constant answer passes all tests of one expected value
    if constant >= 1:
        return 0.0
    return DIFFICULTY_SHARE[problem.difficulty] * max(0.0, (passed - constant) / (1 - constant))


def expected_key(test: TestCase) -> str:
    """Equal for tests that one constant answer would pass: the expected value, or for asserts the literal they compare with."""
    if test.form == "call":
        return _literal_key(test.expected)
    if test.form == "stdio":
        return test.expected.strip()
    try:
        match ast.parse(test.input.strip()).body[-1]:
            case ast.Assert(test=ast.Compare(ops=[ast.Eq() | ast.Is()], comparators=[value])):
                return _literal_key(ast.unparse(value))
            case ast.Assert(test=ast.UnaryOp(op=ast.Not())):
                return "False"
            case ast.Assert(test=ast.Call()):
                return "True"
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        pass
    return f"test {test.input}"


def _literal_key(source: str) -> str:
    try:
        value = ast.literal_eval(source.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return source.strip()
    return f"{type(value).__name__} {value!r}"
