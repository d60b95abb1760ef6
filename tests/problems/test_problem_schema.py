"""Every layout that loads, and every malformation that does not: file, line and field named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import ProblemFileError, UsageError
from rlaif.problems import assign_roles, load_problems, problem_from_dict, problem_to_dict
from rlaif.problems.schema import mbpp_split
from rlaif.types import Problem, TestCase

SEED = {"prompt": "Write a function that adds two numbers.", "test_input": "add(2, 3)", "expected_output": "5", "difficulty": "easy"}
OURS = {
    "id": "t/neg",
    "topic": "numbers",
    "difficulty": "easy",
    "entry_point": "neg",
    "signature": "def neg(x: int) -> int:",
    "prompt": "Negate.",
    "tests": [{"role": "shown", "input": "neg(1)", "expected": "-1"}, {"role": "graded", "input": "neg(2)", "expected": "-2"}],
    "reference": "def neg(x: int) -> int:\n    return -x\n",
}
HUMANEVAL = {
    "task_id": "HumanEval/901",
    "prompt": 'from typing import List\n\ndef helper(x):\n    return x\n\n\ndef first(xs: List[int]) -> int:\n    """ First item.\n    """\n',
    "entry_point": "first",
    "canonical_solution": "    return helper(xs[0])\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([3]) == 3\n",
}
MBPP = {
    "task_id": 20,
    "prompt": "Square a number.",
    "code": "def helper(x):\n  return x\n\ndef sum(x):\n  return helper(x) * x",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(sum(2), 4)", "assert sum(3) == 9", "assert sum(4) == 16"],
}


def read(obj: object) -> Problem:
    return problem_from_dict(obj, path="f.jsonl", line=7)


def test_seed_layout() -> None:
    problem = read(SEED)
    assert (problem.entry_point, problem.difficulty, problem.source, problem.id) == ("add", "easy", "f", "f/7")
    assert problem.tests == (TestCase("graded", "add(2, 3)", "5"),), "a single test is graded and never shown"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("sorted(unique([2, 1, 2]))", "unique"),
        ("s = Stack()\ns.push(1)\ns.pop()", "Stack"),
        ("x = [3]; grow(x); x", "grow"),
        ("list(map(double, [1, 2]))", "double"),
        ("outer(inner(1))", "outer"),
        ("[f(x) for x in range(3)]", "f"),
        ("Solution().solve(1)", "Solution"),
    ],
)
def test_the_function_asked_for_is_read_from_the_call(source: str, name: str) -> None:
    assert read({**SEED, "test_input": source}).entry_point == name


def test_the_function_is_the_one_that_all_tests_call() -> None:
    tests = [{"input": "decode(encode('a'))", "expected": "'a'"}, {"input": "encode('b')", "expected": "'c'"}]
    assert read({"prompt": "p", "tests": tests}).entry_point == "encode"


@pytest.mark.parametrize(
    ("value", "literal"), [("5", "5"), (5, "5"), ([1, "a"], "[1, 'a']"), (True, "True"), (None, "None"), ("'x'", "'x'"), (1.5, "1.5")]
)
def test_expected_values_as_literals_or_plain(value: object, literal: str) -> None:
    assert read({**SEED, "expected_output": value}).tests[0].expected == literal


@pytest.mark.parametrize(
    ("given_input", "entry_point", "signature", "call"),
    [
        ("2, 3", "add", "", "add(*2, 3)"),
        ("(2, 3)", "add", "", "add(*(2, 3))"),
        ("(2, 3)", "total", "def total(pair):", "total((2, 3))"),
        ("[1, 2]", "total", "", "total([1, 2])"),
        ([2, 3], "add", "def add(a, b):", "add(2, 3)"),
        ([2, 3], "total", "def total(xs):", "total([2, 3])"),
        (7, "neg", "", "neg(7)"),
    ],
)
def test_arguments_alone_become_a_call_where_the_function_is_known(given_input: object, entry_point: str, signature: str, call: str) -> None:
    problem = read({"prompt": "p", "entry_point": entry_point, "signature": signature, "tests": [{"input": given_input, "expected": 0}]})
    assert problem.tests[0].input == call.replace("(*2, 3)", "(2, 3)")


@given(st.integers(1, 40))
def test_roles_by_rule(count: int) -> None:
    roles = [test.role for test in assign_roles([TestCase("held_out", "f()", "0")] * count)]
    if count == 1:
        assert roles == ["graded"]
    else:
        assert roles[0] == "shown" and "shown" not in roles[1:]
        assert 2 * roles.count("graded") >= count - 1
        assert roles.count("graded") - roles.count("held_out") in (0, 1)


def test_all_graded_for_code_that_exists_already() -> None:
    problem = problem_from_dict(OURS, path="f", line=1, all_graded=True)
    assert {test.role for test in problem.tests} == {"graded"}


def test_nulls_of_a_table_are_as_good_as_absent() -> None:
    columns = dict.fromkeys(("test_input", "tests", "test_list", "test", "difficulty", "split", "imported", "preamble", "topic", "reference"))
    assert read({**columns, **SEED}) == read(SEED)
    nulls = [{**test, "form": None} for test in OURS["tests"]]
    assert read({**columns, "expected_output": None, **OURS, "tests": nulls}) == read(OURS)
    assert read({**columns, **SEED, "expected_output": None}).tests[0].expected == "None", "a value may be null"


def test_humaneval_layout() -> None:
    problem = read(HUMANEVAL)
    assert problem.preamble == "from typing import List\n\ndef helper(x):\n    return x\n"
    assert problem.signature == "def first(xs: List[int]) -> int:"
    assert problem.prompt == "First item."
    assert problem.tests == (TestCase("graded", HUMANEVAL["test"], form="code"),)
    assert problem.imported and problem.split == "test"
    space: dict = {}
    exec(problem.preamble + problem.reference, space)
    assert space["first"]([3]) == 3


def test_humaneval_with_a_statement_above_the_docstring() -> None:
    prompt = 'def area(r):\n    import math\n    """Area of a circle."""\n'
    problem = read({**HUMANEVAL, "prompt": prompt, "entry_point": "area", "canonical_solution": "    return math.pi * r * r\n"})
    assert (problem.signature, problem.prompt) == ("def area(r):\n    import math", "Area of a circle.")


def test_mbpp_layouts_and_a_function_named_like_a_builtin() -> None:
    problem = read(MBPP)
    assert (problem.id, problem.entry_point, problem.signature) == ("Mbpp/20", "sum", "def sum(x):")
    assert [test.role for test in problem.tests] == ["shown", "graded", "held_out"]
    assert problem.tests[1].input == "import math\nassert sum(3) == 9"
    full = {"task_id": 601, "text": "Square.", "code": MBPP["code"], "test_setup_code": "import math", "test_list": MBPP["test_list"]}
    other = read({**full, "challenge_test_list": ["assert sum(0) == 0"]})
    assert other.prompt == "Square." and other.split == "train" and other.tests[3].role == "held_out"
    assert [mbpp_split(str(n)) for n in (10, 11, 510, 511, 600, 601)] == ["train", "test", "test", "validation", "validation", "train"]


@pytest.mark.parametrize("obj", [SEED, OURS, HUMANEVAL, MBPP, {"prompt": "judge only"}])
def test_round_trip(obj: dict) -> None:
    problem = read(obj)
    assert read(json.loads(json.dumps(problem_to_dict(problem)))) == problem


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(literals, st.lists(literals, max_size=3))
def test_any_literal_survives(expected: object, arguments: list) -> None:
    call = f"f({', '.join(map(repr, arguments))})"
    problem = read({"prompt": "p", "test_input": call, "expected_output": repr(expected)})
    assert read(problem_to_dict(problem)) == problem
    assert eval(problem.tests[0].expected) == expected


NO_EXPECTED = {key: value for key, value in SEED.items() if key != "expected_output"}


@pytest.mark.parametrize(
    ("obj", "field", "says"),
    [
        ([1], None, "expected a JSON object, found a list"),
        ({**SEED, "prompt": ""}, "prompt", "empty"),
        ({**SEED, "prompt": 3}, "prompt", "expected a string, found a number"),
        ({key: value for key, value in SEED.items() if key != "prompt"}, "prompt", "missing"),
        ({**SEED, "difficulty": "harder"}, "difficulty", "did you mean 'hard'"),
        (NO_EXPECTED, "expected_output", "missing"),
        ({**NO_EXPECTED, "expected_outptu": "5"}, "expected_outptu", "did you mean 'expected_output'"),
        ({**SEED, "expected_output": "hello"}, "expected_output", "in quotes of its own: 'hello'"),
        ({**SEED, "expected_output": "true"}, "expected_output", "Python writes it True"),
        ({**SEED, "expected_output": "add(2, 3)"}, "expected_output", "not a Python literal"),
        ({**SEED, "expected_output": float("nan")}, "expected_output", "not a Python literal"),
        ({**SEED, "test_input": "add(2, "}, "test_input", "not a Python expression"),
        ({**SEED, "test_input": ""}, "test_input", "not a Python expression"),
        ({**SEED, "test_input": "x = add(2, 3)"}, "test_input", "must be an expression"),
        ({**SEED, "test_input": "def f(): pass"}, "test_input", "must be an expression"),
        ({**SEED, "test_input": "2 + 3"}, "test_input", "calls no function"),
        ({**SEED, "test_input": 5}, "test_input", "expected Python in a string"),
        ({**SEED, "entry_point": "mul"}, "test_input", "never calls 'mul'"),
        ({**SEED, "entry_point": "not a name"}, "entry_point", "not a Python name"),
        ({**OURS, "tests": "neg(1)"}, "tests", "expected a list"),
        ({**OURS, "tests": ["neg(1)"]}, "tests[0]", "expected an object"),
        ({**OURS, "tests": [{"input": "neg(1)"}]}, "tests[0].expected", "missing"),
        ({**OURS, "tests": [*OURS["tests"], {"input": "neg(1)", "expected": "x y"}]}, "tests[2].expected", "not a Python literal"),
        ({**OURS, "tests": [*OURS["tests"], {"input": "neg(1)", "expected": "-1"}]}, "tests", "some have none"),
        ({**OURS, "tests": [{**OURS["tests"][0], "role": "secret"}]}, "role", "not one of shown, graded, held_out"),
        ({**OURS, "tests": OURS["tests"][:1]}, "tests", "every test is shown"),
        ({**OURS, "tests": [{"rol": "shown", "input": "neg(1)", "expected": "-1"}]}, "tests[0].rol", "did you mean 'role'"),
        ({**OURS, "tests": [{"inptu": "neg(1)", "expected": "-1"}]}, "tests[0].inptu", "did you mean 'input'"),
        ({"prompt": "p", "tests": [{"input": "f(1)", "expected": 1}, {"input": "g(1)", "expected": 1}]}, "tests", "no function in common"),
        ({**OURS, "reference": "def neg(x: return"}, "reference", "not valid Python"),
        ({**OURS, "reference": "def other(x):\n    return 1"}, "reference", "does not define 'neg'"),
        ({**OURS, "id": [1]}, "id", "expected a string or a number"),
        ({**OURS, "imported": "yes"}, "imported", "expected true or false"),
        ({**HUMANEVAL, "test": "def check(candidate: assert"}, "test", "not valid Python"),
        ({**HUMANEVAL, "test": "def check():\n    pass"}, "test", "must take one argument"),
        ({**HUMANEVAL, "entry_point": None}, "entry_point", "missing"),
        ({**HUMANEVAL, "canonical_solution": "return ("}, "canonical_solution", "not valid Python"),
        ({**MBPP, "test_list": "assert f(1)"}, "test_list", "expected a list of strings"),
        ({**MBPP, "test_list": ["assert f("]}, "test_list[0]", "not valid Python"),
        ({**MBPP, "test_list": ["assert other(1) == 1"]}, "test_list", "no assert calls a function that code defines"),
    ],
)
def test_malformed(obj: object, field: str | None, says: str) -> None:
    with pytest.raises(ProblemFileError) as caught:
        read(obj)
    assert (caught.value.line, caught.value.field, caught.value.exit_code) == (7, field, 2), str(caught.value)
    assert says in str(caught.value) and "f.jsonl, line 7" in str(caught.value)


def write(path: Path, *objects: object) -> str:
    path.write_text("\n".join(json.dumps(obj) for obj in objects), encoding="utf-8")
    return str(path)


def test_malformed_files(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    write(path, SEED, {**SEED, "difficulty": "x"})
    with pytest.raises(ProblemFileError, match=r"f.jsonl, line 2, field 'difficulty'"):
        load_problems(str(path))
    path.write_text(json.dumps(SEED) + "\n\n{oops\n")
    with pytest.raises(ProblemFileError, match="line 3\nit is not JSON"):
        load_problems(str(path))
    path.write_text("{\n")
    with pytest.raises(ProblemFileError, match="one object a line"):
        load_problems(str(path))
    path.write_text("\n")
    with pytest.raises(ProblemFileError, match="holds no problem"):
        load_problems(str(path))
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ProblemFileError, match="line 1\nit is not UTF-8"):
        load_problems(str(path))
    path.write_bytes(json.dumps({**SEED, "prompt": "long" * 5000}).encode() + b'\n{"prompt": "caf\xe9"}\n')
    with pytest.raises(ProblemFileError, match=r"line 2\nit is not UTF-8 .* at byte 16 of the line"):
        load_problems(str(path))
    path.write_bytes(gzip.compress(json.dumps(SEED).encode()))
    with pytest.raises(ProblemFileError, match="compressed: unpack it first"):
        load_problems(str(path))
    path.write_text(json.dumps(SEED) + '\n{"prompt": "a \\ud800", "test_input": "f(1)", "expected_output": "1"}\n')
    with pytest.raises(ProblemFileError, match=r"line 2, field 'prompt'\n.* half of a character"):
        load_problems(str(path))
    (tmp_path / "a.json").write_text('[{"prompt": "p", "tests": [{"input": "f(\'\\ud800\')", "expected": 1}]}]')
    with pytest.raises(ProblemFileError, match=r"line 1, field 'tests'\n.* half of a character"):
        load_problems(str(tmp_path / "a.json"))
    write(path, OURS, OURS)
    with pytest.raises(ProblemFileError, match=r"line 2, field 'id'\n't/neg' was used on line 1"):
        load_problems(str(path))
    with pytest.raises(ProblemFileError, match="no such file"):
        load_problems(str(tmp_path / "none.jsonl"))


def test_files_that_load(tmp_path: Path) -> None:
    few = write(tmp_path / "few.jsonl", *({**SEED, "prompt": f"p{i}"} for i in range(3)))
    assert len(load_problems(few, split="test")) == len(load_problems(few, split="train")) == 3, "too few to hold any out"
    many = write(tmp_path / "many.jsonl", *({**SEED, "prompt": f"p{i}"} for i in range(20)))
    test, train = load_problems(many, split="test"), load_problems(many, split="train")
    assert (len(test), len(train)) == (4, 16) and not {p.id for p in test} & {p.id for p in train}
    assert load_problems(many, limit=2) == load_problems(many)[:2]
    own = write(tmp_path / "own.jsonl", {**SEED, "split": "test"}, SEED)
    assert [p.split for p in load_problems(own)] == ["test", "train"]
    (tmp_path / "array.json").write_text(json.dumps([SEED, OURS]))
    assert [p.id for p in load_problems(str(tmp_path / "array.json"))] == ["array/1", "t/neg"]
    (tmp_path / "bom.jsonl").write_text("\ufeff" + json.dumps(SEED), encoding="utf-8")
    assert len(load_problems(str(tmp_path / "bom.jsonl"))) == 1
    with pytest.raises(UsageError, match="no problem in its 'validation' split"):
        load_problems(many, split="validation")


def test_builtin_loads_and_refuses_an_unknown_topic() -> None:
    problems = load_problems("builtin")
    assert len({problem.id for problem in problems}) == len(problems)
    assert {problem.split for problem in problems} == {"train", "validation", "test"}
    assert all(problem.topic == "strings" for problem in load_problems("builtin/strings"))
    with pytest.raises(UsageError, match="No built-in level or topic 'poetry'"):
        load_problems("builtin/poetry")
