"""Rows of function sets (KodCode, AceCode, LeetCodeDataset, BigCodeBench, MBPP+) as problems.

Each reader takes one row and gives a `Problem`, or raises `SkipRow` for one that cannot be used and ProblemFileError for one that is
not of the layout it claims.
"""

from __future__ import annotations

import ast
import json
import sys
from typing import Any

from rlaif.problems import pysource
from rlaif.problems.contests import SkipRow, level_of
from rlaif.problems.fields import Row
from rlaif.problems.schema import assign_roles, problem_from_dict, split_code_prompt
from rlaif.types import Problem, Split, TestCase

_RUN_UNITTEST = """

def check(candidate):
    import unittest
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(TestCases).run(result)
    assert result.testsRun and result.wasSuccessful()
"""


def from_kodcode(row: Row, split: Split) -> Problem:
    """KodCode: pytest functions that import from a module called solution, or (online judge) lists of stdin and stdout in JSON."""
    test, solution = row.text("test"), row.text("solution")
    _skip_foreign((pysource.imported_modules(test) | pysource.imported_modules(solution)) - {"solution", "pytest"})
    info = row.data.get("test_info") or []
    name = info[0].get("function_name") if info and isinstance(info[0], dict) else None
    tests = _stdio_lists(test)
    if tests is None:
        entry_point, tests = _pytest_functions(row, test, name)
    else:
        entry_point = None
    reference = solution if pysource.parses(solution) and (entry_point is None or pysource.defines(solution, entry_point)) else None
    return Problem(
        id=f"kodcode/{row.data.get('question_id') or row.line}",
        prompt=row.text("question"),
        tests=assign_roles(tests),
        entry_point=entry_point,
        signature=pysource.signature_of(solution, entry_point) if entry_point else "",
        reference=reference,
        difficulty=level_of(row.text("gpt_difficulty", "")),
        topic=row.text("subset", "general").lower(),
        split=split,
        source="kodcode",
        imported=True,
    )


def _stdio_lists(test: str) -> list[TestCase] | None:
    try:
        data = json.loads(test)
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("stdin"), list) or len(data["stdin"]) != len(data.get("stdout", [])):
        return None
    return [TestCase("graded", str(given), str(expected), "stdio") for given, expected in zip(data["stdin"], data["stdout"], strict=True)]


def _pytest_functions(row: Row, test: str, name: str | None) -> tuple[str, list[TestCase]]:
    """Each `test_...` function as a test of its own: the module without its import of the solution, and a call."""
    tree = pysource.parse_or_none(test)
    if tree is None:
        raise row.error("test", "it is not valid Python")
    kept: list[ast.stmt] = []
    functions: list[ast.FunctionDef] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "solution":
            name = name or node.names[0].name
        elif isinstance(node, ast.Import | ast.ImportFrom) and "pytest" in ast.unparse(node):
            raise SkipRow("its tests need pytest")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            functions.append(node)
        else:
            kept.append(node)
    if name is None:
        raise row.error("test", "it imports nothing from solution, and test_info names no function")
    if any(function.args.args or function.decorator_list for function in functions):
        raise SkipRow("its tests need pytest's fixtures")
    if not functions:
        raise SkipRow("it has no tests")
    shared = "\n".join(ast.unparse(node) for node in kept)
    sources = [f"{shared}\n{ast.unparse(function)}\n{function.name}()".lstrip() for function in functions]
    return name, [TestCase("graded", source, form="code") for source in sources]


def from_acecode(row: Row, split: Split) -> Problem:
    """AceCode: asserts that a model wrote, no solution of record; a sampled program that passed all of them serves as the reference."""
    asserts = row.strings("test_cases")
    good = [text for text in asserts if pysource.parses(text)]
    names = pysource.called_names("\n".join(good))
    if not names:
        raise SkipRow("its tests call no function")
    reference = None
    for item in row.data.get("inferences") or []:
        code = item.get("completion") if isinstance(item, dict) and item.get("pass_rate") == 1.0 else None
        if isinstance(code, str) and pysource.defines(code, names[0]):
            reference = code
            break
    return Problem(
        id=f"acecode/{row.data.get('id') or row.line}",
        prompt=row.text("question"),
        tests=assign_roles([TestCase("graded", text, form="code") for text in good]),
        entry_point=names[0],
        signature=pysource.signature_of(reference or "", names[0]),
        reference=reference,
        difficulty="medium",
        topic=row.text("source", "general"),
        split=split,
        source="acecode",
        imported=True,
    )


def from_leetcode(row: Row, split: Split) -> Problem:
    """LeetCodeDataset: `entry_point` is an expression ("Solution().twoSum"), `prompt` is the code that must run first, not a task.

    `assert candidate(args) == literal` becomes a call; a `check` with anything else in it stays whole, around the method.
    """
    expression, test = row.text("entry_point"), row.text("test")
    owner, _, method = expression.partition("().")
    if not method or not owner.isidentifier() or not method.isidentifier():
        raise row.error("entry_point", f"expected the form Solution().name, found {expression!r}")
    tree = pysource.parse_or_none(test)
    if tree is None or not pysource.defines(test, "check"):
        raise row.error("test", "it does not define check(candidate)")
    lowered = _lower_check(tree, expression)
    whole = f"{test.replace('def check(', 'def check_method(', 1)}\n\ndef check(candidate):\n    check_method(candidate().{method})\n"
    tests = assign_roles(lowered) if lowered else (TestCase("graded", whole, form="code"),)
    preamble, starter, completion = row.text("prompt", ""), row.text("starter_code", ""), row.text("completion", "")
    return Problem(
        id=f"leetcode/{row.data.get('task_id') or row.data.get('question_id') or row.line}",
        prompt=row.text("problem_description"),
        tests=tests,
        entry_point=owner,
        signature=starter.rstrip(),
        preamble=preamble,
        reference=completion if pysource.defines(completion, owner) else None,
        difficulty=level_of(row.text("difficulty", "")),
        topic="contest",
        split=split,
        source="leetcode",
        imported=True,
    )


def _lower_check(tree: ast.Module, expression: str) -> list[TestCase]:
    """The asserts of `check` as calls, if every one of them is `candidate(literals) == literal`; else nothing."""
    check = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check")
    tests = []
    for node in check.body:
        match node:
            case ast.Assert(test=ast.Compare(left=ast.Call(func=ast.Name(id="candidate")) as call, ops=[ast.Eq()], comparators=[right])):
                parts = [*call.args, *(word.value for word in call.keywords), right]
                if any(pysource.literal_error(ast.unparse(part)) is not None for part in parts):
                    return []
                tests.append(TestCase("graded", ast.unparse(call).replace("candidate", expression, 1), ast.unparse(right)))
            case _:
                return []
    return tests


def from_bigcodebench(row: Row, split: Split) -> Problem:
    """BigCodeBench: `test` is a unittest class that nobody runs, and most tasks need libraries beyond the standard one."""
    libraries = row.data.get("libs") or []
    if isinstance(libraries, str):  # a list, written as Python in a string
        if pysource.literal_error(libraries) is not None:
            raise row.error("libs", "it is not a list of names")
        libraries = ast.literal_eval(libraries)
    entry_point, test, prompt = row.text("entry_point"), row.text("test"), row.text("complete_prompt")
    _skip_foreign({str(name).split(".")[0] for name in libraries} | pysource.imported_modules(test))
    if not pysource.defines(test, "TestCases"):
        raise row.error("test", "it does not define the class TestCases")
    preamble, signature, text = split_code_prompt(prompt, entry_point)
    return Problem(
        id=row.text("task_id"),
        prompt=row.text("instruct_prompt", text),
        tests=(TestCase("graded", test.rstrip() + _RUN_UNITTEST, form="code"),),
        entry_point=entry_point,
        signature=signature,
        preamble=preamble,
        reference=f"{prompt.rstrip()}\n{row.text('canonical_solution')}",
        difficulty="hard",
        topic="libraries",
        split=split,
        source="bigcodebench",
        imported=True,
    )


def _skip_foreign(modules: set[str]) -> None:
    """No answer could pass where a library is missing, and that is not the answer's fault."""
    if foreign := sorted(modules - sys.stdlib_module_names):
        raise SkipRow(f"it needs {foreign[0]}")


def from_mbpp_plus(row: Row, split: Split) -> Problem:
    """MBPP+: the old asserts, of which the first is shown, and `test`, a module that runs many more inputs."""
    data: dict[str, Any] = {key: value for key, value in row.data.items() if key != "test"}
    problem = problem_from_dict(data, path=row.path, line=row.line, source="mbpp+")
    more = row.text("test")
    if not pysource.parses(more):
        raise row.error("test", "it is not valid Python")
    tests = (*(test for test in problem.tests if test.role == "shown"), TestCase("graded", more, form="code"))
    fields = {name: getattr(problem, name) for name in Problem.__dataclass_fields__}
    return Problem(**{**fields, "tests": tests, "split": split})
