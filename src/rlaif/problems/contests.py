"""Rows of contest sets (APPS, TACO, CodeContests, LiveCodeBench) as problems: whole programs on standard input, or a function called.

Each reader takes one row and gives a `Problem`, or raises `SkipRow` for one that cannot be used and ProblemFileError for one that is
not of the layout it claims.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import struct
import zlib
from typing import Any

from rlaif.problems import pysource
from rlaif.problems.fields import Row, kind
from rlaif.problems.schema import assign_roles
from rlaif.types import Difficulty, Problem, Role, Split, TestCase

MOST_TESTS = 60
"""CodeContests generates hundreds; what comes after this many of one role is left out."""
LONGEST_TEST = 200_000
"""Characters of one input or output; longer tests are left out (they measure the pipe)."""
LARGEST_ARCHIVE = 64 * 2**20
JUDGE_IMPORTS = """import bisect
import collections
import functools
import heapq
import itertools
import math
import random
import re
import string
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, lru_cache, reduce
from heapq import heapify, heappop, heappush
from itertools import accumulate, combinations, permutations, product
from math import ceil, floor, gcd, inf, log, sqrt
from typing import *
"""
"""What LeetCode has imported before an answer runs: starter code says `List[int]`, and solutions of record import nothing."""


class SkipRow(Exception):
    """This row is of the right layout but no problem for us; says why."""


def from_apps(row: Row, split: Split, source: str = "apps") -> Problem:
    """APPS and TACO: `input_output` and `solutions` are JSON inside strings, either may be empty, and `fn_name` decides the form."""
    texts = _json(row, "input_output")
    if not isinstance(texts, dict) or not texts.get("inputs"):
        raise SkipRow("it has no tests")
    inputs, outputs = texts["inputs"], texts.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise row.error("input_output", "inputs and outputs must be lists of the same length")
    name = texts.get("fn_name")
    starter = row.text("starter_code", "")
    solutions = _json(row, "solutions") or []
    if name:
        entry_point, call = _entry(starter or "\n".join(str(text) for text in solutions[:1]), str(name))
        tests = _calls(row, call, inputs, outputs)
    else:
        entry_point = None
        tests = [TestCase("graded", _lines(given), _lines(expected), "stdio") for given, expected in zip(inputs, outputs, strict=True)]
    tests = [test for test in tests if len(test.input) <= LONGEST_TEST and len(test.expected) <= LONGEST_TEST][:MOST_TESTS]
    if not tests:
        raise SkipRow("its tests are all too long")
    return Problem(
        id=f"{source}/{split}/{row.data.get('id', row.data.get('problem_id', row.line))}",  # either set counts each split from zero
        prompt=row.text("question"),
        tests=assign_roles(tests),
        entry_point=entry_point,
        signature=starter.rstrip() if entry_point else "",
        preamble=_preamble(entry_point),
        reference=_first_python(solutions, entry_point),
        difficulty=level_of(row.text("difficulty", "")),
        topic="contest",
        split=split,
        source=source,
        imported=True,
    )


def from_taco(row: Row, split: Split) -> Problem:
    return from_apps(row, split, "taco")


def from_code_contests(row: Row, split: Split) -> Problem:
    """CodeContests: lists in step, languages as numbers (3 is Python 3), some problems read files or need a picture."""
    description = row.text("description")
    if "<image>" in description:
        raise SkipRow("its statement needs a picture")
    if row.text("input_file", "") or row.text("output_file", ""):
        raise SkipRow("it reads or writes named files")
    groups: list[tuple[str, Role]] = [("public_tests", "shown"), ("private_tests", "graded"), ("generated_tests", "held_out")]
    tests: list[TestCase] = []
    for key, role in groups:
        tests += _paired(row, key, role)
    if not any(test.role == "graded" for test in tests):  # the hidden ones share out what is there
        tests = list(assign_roles(tests))
    if not tests:
        raise SkipRow("it has no tests")
    solutions = row.data.get("solutions") or {}
    languages, texts = solutions.get("language", []), solutions.get("solution", [])
    rating = row.data.get("cf_rating") or 0
    return Problem(
        id=f"code_contests/{row.text('name')}",
        prompt=description,
        tests=tuple(tests),
        reference=_first_python([text for language, text in zip(languages, texts, strict=False) if language == 3], None),
        difficulty="easy" if 0 < rating < 1200 else "hard" if rating >= 1800 else "medium",
        topic="contest",
        split=split,
        source="code_contests",
        imported=True,
    )


def from_livecodebench(row: Row, split: Split) -> Problem:
    """LiveCodeBench: public tests are JSON in a string; private ones too, or that string pickled, compressed and in base64."""
    public, private = _json(row, "public_test_cases") or [], _private_tests(row)
    starter = row.text("starter_code", "")
    metadata = _json(row, "metadata") or {}
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    entry_point, call = _entry(starter, str(name)) if name else (None, "")
    tests: list[TestCase] = []
    parts: tuple[tuple[Role, list[Any]], ...] = (("shown", public), ("graded", private))
    for role, cases in parts:
        tests += [_livecodebench_test(row, case, role, call) for case in cases]
    tests = [test for test in tests if len(test.input) <= LONGEST_TEST and len(test.expected) <= LONGEST_TEST]
    if not tests:
        raise SkipRow("it has no tests")
    hidden = [test for test in tests if test.role == "graded"][:MOST_TESTS]
    hidden = [TestCase("graded" if i % 2 == 0 else "held_out", test.input, test.expected, test.form) for i, test in enumerate(hidden)]
    shown = [test for test in tests if test.role == "shown"]
    return Problem(
        id=f"livecodebench/{row.data.get('question_id') or row.line}",
        prompt=row.text("question_content"),
        tests=tuple(shown + hidden) if hidden else assign_roles(shown),
        entry_point=entry_point,
        signature=starter.rstrip() if entry_point else "",
        preamble=_preamble(entry_point),
        difficulty=level_of(row.text("difficulty", "")),
        topic="contest",
        split=split,
        source="livecodebench",
        imported=True,
    )


def _livecodebench_test(row: Row, case: object, role: Role, call: str) -> TestCase:
    if not isinstance(case, dict) or not isinstance(case.get("input"), str) or not isinstance(case.get("output"), str):
        raise row.error("public_test_cases" if role == "shown" else "private_test_cases", "a test must have input and output as strings")
    if case.get("testtype") != "functional":
        return TestCase(role, case["input"], case["output"], "stdio")
    if not call:
        raise row.error("metadata", "func_name is missing, and a test is functional")
    # One argument a line, each as JSON (or, in a few rows, as Python).
    arguments = [repr(_value(row, line)) for line in case["input"].split("\n") if line.strip()]
    return TestCase(role, f"{call}({', '.join(arguments)})", repr(_value(row, case["output"])))


def _private_tests(row: Row) -> list[Any]:
    text = row.text("private_test_cases", "")
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), LARGEST_ARCHIVE)
        if inflate.unconsumed_tail:
            raise row.error("private_test_cases", f"it unpacks to more than {LARGEST_ARCHIVE} bytes")
        return json.loads(read_pickled_text(raw))
    except (ValueError, binascii.Error, zlib.error) as error:
        raise row.error("private_test_cases", f"neither JSON nor a packed string: {error}") from None


def read_pickled_text(raw: bytes) -> str:
    """The one string in a pickle that holds nothing else, read by its bytes. Nothing is unpickled, so nothing can run.

    Such a pickle is: protocol (0x80 n), perhaps a frame (0x95 and 8 bytes), a string (0x8c with a 1-byte length, X with 4, 0x8d with 8),
    perhaps a memo (0x94, or q with 1 byte, or r with 4), and the stop '.'. Raises ValueError for any other byte.
    """
    at = 2 if raw[:1] == b"\x80" else 0
    if raw[at : at + 1] == b"\x95":
        at += 9
    widths = {b"\x8c": ("<B", 1), b"X": ("<I", 4), b"\x8d": ("<Q", 8)}
    form, width = widths.get(raw[at : at + 1], ("", 0))
    if not width or len(raw) < at + 1 + width:
        raise ValueError("it holds something other than one string")
    (length,) = struct.unpack_from(form, raw, at + 1)
    start = at + 1 + width
    text, rest = raw[start : start + length], raw[start + length :]
    memo = {b"\x94": 1, b"q": 2, b"r": 5}.get(rest[:1], 0)
    if len(text) != length or rest[memo:] != b".":
        raise ValueError("it holds something other than one string")
    return text.decode("utf-8")


def _calls(row: Row, call: str, inputs: list[Any], outputs: list[Any]) -> list[TestCase]:
    # Most call-based rows wrap the answer in a list of one. A set whose answers are all lists of one was wrapped.
    wrapped = all(isinstance(value, list) and len(value) == 1 for value in outputs)
    tests = []
    for given, expected in zip(inputs, outputs, strict=True):
        if not isinstance(given, list):
            raise row.error("input_output", f"the arguments of a call must be a list, found {kind(given)}")
        arguments = ", ".join(repr(_int_keys(value)) for value in given)
        tests.append(TestCase("graded", f"{call}({arguments})", repr(_int_keys(expected[0] if wrapped else expected))))
    return tests


def _int_keys(value: Any) -> Any:
    """JSON has made strings of integer keys; a dictionary whose keys are all numerals gets them back."""
    if isinstance(value, dict) and value and all(isinstance(key, str) and key.removeprefix("-").isdigit() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _entry(code: str, name: str) -> tuple[str, str]:
    """(entry point, how it is called): LeetCode's functions are methods of a class called Solution."""
    return ("Solution", f"Solution().{name}") if "class Solution" in code else (name, name)


def _preamble(entry_point: str | None) -> str:
    return JUDGE_IMPORTS if entry_point == "Solution" else ""


def _paired(row: Row, key: str, role: Role) -> list[TestCase]:
    group = row.data.get(key) or {}
    inputs, outputs = group.get("input", []), group.get("output", [])
    if len(inputs) != len(outputs):
        raise row.error(key, f"{len(inputs)} inputs and {len(outputs)} outputs")
    pairs = [(a, b) for a, b in zip(inputs, outputs, strict=True) if len(a) <= LONGEST_TEST and len(b) <= LONGEST_TEST]
    return [TestCase(role, given, expected, "stdio") for given, expected in pairs[:MOST_TESTS]]


def _json(row: Row, key: str) -> Any:
    """JSON inside a string; empty is None. Rows with integers of many thousand digits, which Python refuses, are skipped."""
    text = row.text(key, "")
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise row.error(key, f"the JSON in this string is broken: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise SkipRow("a number in its tests is too long") from None


def _value(row: Row, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if pysource.literal_error(text) is not None:
            raise row.error("public_test_cases", f"{text[:60]!r} is neither JSON nor a Python literal") from None
    return ast.literal_eval(text.strip())


def _lines(value: Any) -> str:
    """Standard input or output: a string, or in some rows a list of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _first_python(solutions: list[Any], entry_point: str | None) -> str | None:
    """The first solution that is Python 3 and defines what is asked for (APPS holds some of Python 2)."""
    for text in solutions:
        if isinstance(text, str) and pysource.parses(text) and (entry_point is None or pysource.defines(text, entry_point)):
            return text
    return None


def level_of(name: str) -> Difficulty:
    match name.strip().lower():
        case "introductory" | "easy":
            return "easy"
        case "competition" | "hard" | "very_hard" | "medium_hard":
            return "hard"
        case _:
            return "medium"
