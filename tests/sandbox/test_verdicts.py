"""The trusted side: what is lowered, what equals what, and that hostile trees cost it nothing."""

# ruff: noqa: E501
from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.sandbox import compare
from rlaif.sandbox.inside import codec
from rlaif.sandbox.lower import NotLiteral, breaks, literal, plan
from rlaif.types import Problem, TestCase

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5)
keys = st.integers() | st.text(max_size=5) | st.booleans() | st.tuples(st.integers(), st.text(max_size=3))
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=15,
)


@given(values)
def test_codec_round_trip_is_exact(value: object) -> None:
    back = codec.decode(codec.encode(value))
    assert back == value
    assert repr(type(back)) == repr(type(value))
    assert compare.equal(codec.encode(value), value, exact=True)
    assert compare.equal(codec.encode(value), value, exact=False)


@given(values, values)
def test_exact_comparison_is_pythons(a: object, b: object) -> None:
    assert compare.equal(codec.encode(a), b, exact=True) == (a == b)


@pytest.mark.parametrize(
    ("value", "expected", "own", "imported"),
    [
        (1, 1, True, True),
        (True, 1, False, True),
        (1, True, False, True),
        (1.0, 1, False, True),
        (1, 1.0, True, True),
        (0.1 + 0.2, 0.3, True, False),
        (100.00001, 100.0, True, False),
        (100.1, 100.0, False, False),
        (1e-9, 0.0, False, False),
        (math.nan, math.nan, False, False),
        (math.inf, math.inf, True, True),
        (math.inf, 1.0, False, False),
        ([0.1 + 0.2], [0.3], True, False),
        ({0.1 + 0.2}, {0.3}, True, False),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, True, False),
        ((1, 2), [1, 2], False, False),
        ([1, 2], [2, 1], False, False),
        ({1, 2}, {2, 1}, True, True),
        (frozenset({1}), {1}, False, True),
        ({1: 2, 3: 4}, {3: 4, 1: 2}, True, True),
        ({1: 2}, {1: 2, 3: 4}, False, False),
        ("1", 1, False, False),
        ("a", "a", True, True),
        (b"a", bytearray(b"a"), False, True),
        (None, False, False, False),
        (2**100, 2**100, True, True),
        (-(2**100), 2**100, False, False),
        (Fraction(1, 2), 0.5, False, True),
        (Decimal("1.5"), 1.5, False, True),
        (deque([1]), [1], False, False),
        (range(3), [0, 1, 2], False, False),
        ({frozenset({1}), frozenset({2})}, {frozenset({2}), frozenset({1})}, True, True),
        (Counter("aab"), {"a": 2, "b": 1}, True, True),
        (OrderedDict(a=1), {"a": 1}, True, True),
        (defaultdict(int, a=1), {"a": 1}, True, True),
        (namedtuple("P", "x y")(1, 2), (1, 2), True, True),
    ],
)
def test_equality(value: object, expected: object, own: bool, imported: bool) -> None:
    tree = codec.encode(value)
    assert compare.equal(tree, expected, exact=False) is own
    assert compare.equal(tree, expected, exact=True) is imported


HOSTILE = [
    {"s": [1, 1]}, {"d": [[1, 2], [1, 2]]}, {"d": [[1]]}, {"d": 3}, {"t": "ab"}, {"zz": 1}, {}, {"t": [1], "s": [1]}, {"i": "zz"}, {"i": 5}, {"F": "x"}, {"c": [1, "x"]},
    {"Q": [1, 0]}, {"D": "x"}, {"b": "0"}, {"r": [1, 2, 0]}, {"o": 0}, {"y": 0}, {"s": [{"s": [{"d": []}]}]}, {"f": [[1]]},
]  # fmt: skip


@pytest.mark.parametrize("tree", HOSTILE, ids=str)
@pytest.mark.parametrize("expected", [1, [1], {1}, {1: 2}, (1,), "ab", 1.0, frozenset({1}), {1, 2}])
def test_malformed_trees_are_unequal_and_harmless(tree: object, expected: object) -> None:
    assert not compare.equal(tree, expected, exact=True)
    assert not compare.equal(tree, expected, exact=False)
    assert isinstance(compare.show(tree), str)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"s": [(2**61 - 1) * i for i in range(1, 20000)]}, set(range(19999))),
        ({"d": [[(2**61 - 1) * i, 0] for i in range(1, 20000)]}, dict.fromkeys(range(19999), 0)),
        ({"s": [{"f": [i]} for i in range(20000)]}, {frozenset({-i}) for i in range(1, 20001)}),
        ({"Q": [{"i": "0x" + "f" * 10**6}, {"i": "0x" + "e" * 10**6}]}, 1),
        ({"D": "1E+999999999"}, 1),
        ({"i": "0x" + "f" * 4 * 10**6}, 1),
        ({"D": "9" * 10**6}, 1.0),
    ],
    ids=["set", "dict", "frozensets", "fraction", "decimal", "int", "long decimal"],
)
def test_costly_trees_cost_little(tree: object, expected: object) -> None:
    start = time.perf_counter()
    assert not compare.equal(tree, expected, exact=True)
    compare.show(tree)
    assert time.perf_counter() - start < 3


def test_subclasses_are_cast_down_without_asking_them() -> None:
    class Liar(list):
        def __iter__(self):
            raise AssertionError("asked")

        __len__ = __eq__ = __getitem__ = __iter__  # type: ignore[assignment]
        __hash__ = None  # type: ignore[assignment]

    assert codec.encode(Liar([1, 2])) == [1, 2]
    with pytest.raises(codec.Refused):
        codec.encode(object())
    cyclic: list = []
    cyclic.append(cyclic)
    with pytest.raises(codec.Refused):
        codec.encode(cyclic)


def questions(test: str, form: str = "code", expected: str = "", entry: str = "f"):
    problem = Problem("p", "", (TestCase("graded", test, expected, form),), entry)  # type: ignore[arg-type]
    (step,) = plan(problem, ("graded",))
    assert step.error is None, step.error
    return None if step.questions is None else [(q.source, q.relation, q.expected) for q in step.questions]


def test_asserts_become_questions() -> None:
    assert questions("assert f(1, [2]) == 3, 'no'\nassert 4 == f(x=-1)") == [("f(1, [2])", "eq", 3), ("f(x=-1)", "eq", 4)]
    assert questions("def check(candidate):\n    assert candidate('a') == (1 + 2, 3 * 5)\n    assert True\n") == [("f('a')", "eq", (3, 15))]
    assert questions("assert not f(1)\nassert f(2)\nassert f(3) is None") == [("f(1)", "false", None), ("f(2)", "true", None), ("f(3)", "is", None)]
    assert questions("assert abs(f(1) - 0.5) < 1e-6") == [("f(1)", "near", 0.5)]
    assert questions("assert check(1) == 2", entry="check") == [("check(1)", "eq", 2)]


@pytest.mark.parametrize(
    "test",
    [
        "assert len(f(1)) == 3", "assert sorted(f(1)) == [1]", "assert isinstance(f(1), int)", "assert f(1) == g(1)", "assert f(1) in [1]", "assert f(1) < 3",
        "assert f(g(1)) == 1", "x = f(1)\nassert x == 2", "for i in range(3):\n    assert f(i) == i", "import math\nassert f(1) == 1", "assert f(1) == f(1)",
        "assert f(f(1)) == 1", "def check(candidate):\n    assert f(1) == 1", "def check(candidate, x=1):\n    assert candidate(1) == 1", "print('x')\nassert f(1) == 1",
        "assert f(1) == 2 == 2", "assert f(1) == 1 and f(2) == 2", "assert f(helper) == 1", "assert f.g(1) == 1",
    ],
)  # fmt: skip
def test_what_is_more_than_a_call_is_not_lowered(test: str) -> None:
    assert questions(test) is None


@pytest.mark.parametrize(
    "source",
    [
        "f(1)", "f([i for i in range(5)])", "f(list(range(3)), key=lambda x: -x)", "a = [3, 1]\nf(a)\na", "s = f()\ns.push(1)\ns.push(2)\ns.pop()", "f(1)(2)",
        "[f(1), f(2)]", "x = f(1)\nx.value", "f(float('inf'), 10**6)",
    ],
)  # fmt: skip
def test_call_forms_that_are_the_solutions_own_answer(source: str) -> None:
    assert questions(source, "call", "1") is not None


@pytest.mark.parametrize(
    "source",
    [
        "f(1) == 2", "len(f(1))", "list(f(3))", "x = f(1)\nsorted(x)", "helper(f(1))", "f(1) in [1]", "not f(1)", "f(1) if 1 else 2", "import math\nf(1)",
        "f = 3\nf", "x = f(1)\nx == 3", "f(1)._secret", "f(open)", "[f(1) == 2]", "x = f(1) == 2\nx", "all(f(i) for i in range(3))",
    ],
)  # fmt: skip
def test_call_forms_that_judge_or_name_more_go_the_safe_way(source: str) -> None:
    assert questions(source, "call", "1") is None


def test_comments_of_a_test_do_not_reach_the_solution() -> None:
    assert questions("f(1)  # gives 14", "call", "14") == [("f(1)", "eq", 14)]


def test_literals() -> None:
    assert literal(" [1, -2, {'a': (3,)}] ") == [1, -2, {"a": (3,)}]
    assert literal("float('inf')") == math.inf
    assert literal("set()") == set()
    for text in ("hello", "f(1)", "__import__('os')", "2**10**8", "[x for x in y]", "1/0"):
        with pytest.raises(NotLiteral):
            literal(text)


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (["f(1) == 7", "f(2) == 8", "f(3) == 9"], set()),
        (["f('a') == 'xq'", "f('xq') == 'a'"], {1}),
        (["f('a') == 'xq'", "f('say xq now') == 'b'", "f('c') == 'd'"], {1}),
        (["f('a') == 'xq'", "f('b') == 'c'", "f('xq') == 'a'", "f('d') == 'e'"], {2}),
        (["f([2, 1]) == [1, 2]", "f((1, 2, 3)) == 0"], {1}),
        (["f([2, 1]) == [1, 2]", "f([2, 1, 2]) == 0"], {1}),
        (["f(1) == 6", "f(16) == 2", "f(0.6) == 3", "f(6.5) == 4", "f('a6') == 5"], set()),
        (["f(1) == 6", "f([1, 6.0]) == 2"], {1}),
        (["f(1) == 6.0", "f(-6) == 2"], {1}),
        (["f(1) == True", "f(True) == []", "f([]) == None", "f(None) == ''"], set()),
        (["f(1) == 7", "f(list(range(8))) == 8", "f(2) == 9"], {1}),
        (["f(1) == 7", "f('" + "x" * 70_000 + "') == 8", "f(2) == 9"], {1, 2}),
    ],
)
def test_no_question_shows_the_answer_of_one_that_goes_out_with_it(tests: list[str], expected: set[int]) -> None:
    as_calls = Problem("calls", "", tuple(TestCase("graded", *test.split(" == ")) for test in tests), "f")
    assert breaks(as_calls, ("graded",)) == expected
    as_code = Problem("code", "", (TestCase("graded", "".join(f"assert {test}\n" for test in tests), "", "code"),), "f")
    assert breaks(as_code, ("graded",)) == expected
