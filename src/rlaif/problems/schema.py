"""One JSON object in, one `Problem` out, for our own layout, the seed's, HumanEval's and MBPP's; and back again.

**Roles.** A test may name its role. Where none does, a problem with a single test has it graded and never shown; otherwise the
first test is shown, and the others are graded and held_out in turn, beginning with graded, so that at least half of them are graded.

**Values.** `expected` (or `expected_output`) is a Python literal in a string ("[1, 2]", "'abc'") or a plain JSON value (5, [1, 2],
true, null). `input` (or `test_input`) is Python: statements and a last expression, whose call names the function asked for. Where
the name is known from elsewhere, the arguments alone will do ("2, 3").
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from rlaif.errors import ProblemFileError
from rlaif.problems import pysource
from rlaif.problems.fields import TEST_KEYS, Row, kind, layout_of
from rlaif.types import Difficulty, Form, Problem, Role, Split, TestCase


def problem_from_dict(obj: object, *, path: object, line: int | None, source: str | None = None, all_graded: bool = False) -> Problem:
    """Normalise one object.

    path, line: where it stands, for errors (line counts from 1, None for an object that came from no line).
    source: what `Problem.source` becomes unless the object says it; default: the file's name without its suffix.
    all_graded: grade every test (for scoring code that exists already, where nothing is shown to anybody).
    Raises ProblemFileError, naming file, line and field, for anything that is not a problem. A problem without tests is one.
    """
    if not isinstance(obj, dict):
        raise ProblemFileError(path, line, None, f"expected a JSON object, found {kind(obj)}")
    obj = _without_nulls(obj)
    row = Row(obj, path, line)
    row.refuse_misspelt()
    source = source or PurePath(str(path)).stem
    match layout_of(obj):
        case "mbpp":
            problem = _from_mbpp(row, source)
        case "humaneval":
            problem = _from_humaneval(row, source)
        case "native":
            problem = _from_native(row, source)
    if all_graded:
        problem = replace(problem, tests=tuple(replace(test, role="graded") for test in problem.tests))
    return problem


def _without_nulls(obj: dict[str, Any]) -> dict[str, Any]:
    """A table gives every row every column, null where the row had none. Only an expected value may mean null."""
    kept = {key: value for key, value in obj.items() if value is not None or (key == "expected_output" and obj.get("test_input") is not None)}
    if isinstance(tests := kept.get("tests"), list):
        kept["tests"] = [_without_null_fields(test) if isinstance(test, dict) else test for test in tests]
    return kept


def _without_null_fields(test: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in test.items() if value is not None or key == "expected"}


def problem_to_dict(problem: Problem) -> dict[str, Any]:
    """The problem in our own layout, JSON-ready; `problem_from_dict` gives it back equal."""
    tests = [
        {"role": test.role, "input": test.input, "expected": test.expected} | ({} if test.form == "call" else {"form": test.form})
        for test in problem.tests
    ]
    out: dict[str, Any] = {"id": problem.id, "topic": problem.topic, "difficulty": problem.difficulty, "entry_point": problem.entry_point}
    out |= {"signature": problem.signature, "prompt": problem.prompt, "tests": tests, "reference": problem.reference}
    out |= {"split": problem.split, "source": problem.source}
    if problem.preamble:
        out["preamble"] = problem.preamble
    if problem.imported:
        out["imported"] = True
    return out


def assign_roles(tests: Sequence[TestCase]) -> tuple[TestCase, ...]:
    """Give roles by the rule in this module's docstring, whatever they were."""
    if len(tests) == 1:
        return (replace(tests[0], role="graded"),)
    cycle: tuple[Role, Role] = ("graded", "held_out")
    return tuple(replace(test, role="shown" if i == 0 else cycle[(i - 1) % 2]) for i, test in enumerate(tests))


def _from_native(row: Row, source: str) -> Problem:
    prompt = row.text("prompt")
    raw = _raw_tests(row)
    reference, signature = row.optional("reference"), row.text("signature", "")
    entry_point = row.identifier("entry_point") or _guess_entry_point(row, raw, reference, signature)
    arity = pysource.arity_of(reference or f"{signature}\n    pass", entry_point) if entry_point else None
    tests = tuple(_native_test(row, where, item, entry_point, arity) for where, item in raw)
    if any("role" in item for _, item in raw):
        if not all("role" in item for _, item in raw):
            raise row.error("tests", "some tests have a role and some have none: give all of them one, or none")
        if all(test.role == "shown" for test in tests):
            raise row.error("tests", "every test is shown, so nothing is left to grade", "give one the role 'graded'")
    elif tests:
        tests = assign_roles(tests)
    if reference is not None:
        _check_reference(row, "reference", reference, entry_point)
        signature = signature or (pysource.signature_of(reference, entry_point) if entry_point else "")
    return Problem(
        id=_identity(row, source),
        prompt=prompt,
        tests=tests,
        entry_point=entry_point,
        signature=signature,
        preamble=row.text("preamble", ""),
        reference=reference,
        difficulty=row.choice("difficulty", Difficulty, "easy"),
        topic=row.text("topic", "general"),
        split=row.choice("split", Split, "train"),
        source=row.text("source", source),
        imported=row.flag("imported"),
    )


def _raw_tests(row: Row) -> list[tuple[str, dict[str, Any]]]:
    """(field name for errors, {input, expected, role?, form?}) of each test, from `test_input` and from `tests`."""
    found: list[tuple[str, dict[str, Any]]] = []
    if "test_input" in row.data or "expected_output" in row.data:
        for key in ("test_input", "expected_output"):
            if key not in row.data:
                raise row.error(key, "it is missing: a test needs both test_input and expected_output")
        found.append(("", {"input": row.data["test_input"], "expected": row.data["expected_output"]}))
    tests = row.data.get("tests", [])
    if not isinstance(tests, list):
        raise row.error("tests", f"expected a list of {{input, expected}}, found {kind(tests)}")
    for index, item in enumerate(tests):
        field = f"tests[{index}]"
        if not isinstance(item, dict):
            raise row.error(field, f"expected an object with input and expected, found {kind(item)}")
        Row(item, row.path, row.line).refuse_misspelt(TEST_KEYS, f"{field}.")
        needed = ("input",) if item.get("form") == "code" else ("input", "expected")
        for key in needed:
            if key not in item:
                raise row.error(f"{field}.{key}", "it is missing")
        found.append((f"{field}.", item))
    return found


def _native_test(row: Row, where: str, item: dict[str, Any], entry_point: str | None, arity: int | None) -> TestCase:
    names = ("test_input", "expected_output") if where == "" else (f"{where}input", f"{where}expected")
    sub = Row(item, row.path, row.line)
    role, form = sub.choice("role", Role, "graded"), sub.choice("form", Form, "call")
    source, expected = item["input"], item.get("expected", "")
    if form != "call":
        for name, value in zip(names, (source, expected), strict=True):
            if not isinstance(value, str):
                raise row.error(name, f"expected a string, found {kind(value)}")
        if form == "code" and not pysource.parses(source):
            raise row.error(names[0], "it is not valid Python")
        return TestCase(role, source, expected, form)
    return TestCase(role, _call(row, names[0], source, entry_point, arity), _literal(row, names[1], expected))


def _call(row: Row, field: str, source: object, entry_point: str | None, arity: int | None) -> str:
    """The test's input as a call. Arguments alone become one, where the function is known."""
    if isinstance(source, str):
        tree = pysource.parse_or_none(source.strip())
        if tree is None or not tree.body:
            raise row.error(field, f"{source!r} is not a Python expression", "write the call, such as add(2, 3)")
        if not isinstance(tree.body[-1], ast.Expr):
            raise row.error(field, "its last line must be an expression, whose value is compared", "end it with the call, such as add(2, 3)")
        names = pysource.free_names(source)
        if entry_point is not None and entry_point in names:
            return source.strip()
        if names:
            wanted = repr(entry_point) if entry_point else "the function asked for"
            raise row.error(field, f"it never calls {wanted}", f"write a call of {wanted}, or correct entry_point")
        if pysource.literal_error(source) is None and entry_point is not None:
            arguments = source.strip()
            is_tuple = arguments.startswith("(") and arguments.endswith(")") and "," in arguments
            return f"{entry_point}(*{arguments})" if is_tuple and arity != 1 else f"{entry_point}({arguments})"
        raise row.error(field, f"{source!r} calls no function, so it is not known what to ask for", "write the call, such as add(2, 3)")
    if entry_point is None:
        raise row.error(field, f'expected Python in a string, such as "add(2, 3)", found {kind(source)}')
    if isinstance(source, list) and arity != 1 and (arity is None or len(source) == arity):
        return f"{entry_point}({', '.join(map(repr, source))})"
    return f"{entry_point}({source!r})"


def _literal(row: Row, field: str, value: object) -> str:
    text = value.strip() if isinstance(value, str) else repr(value)
    problem = pysource.literal_error(text)
    if problem is not None:
        python = {"true": "True", "false": "False", "null": "None"}.get(text)
        hint = f"Python writes it {python}" if python else f"if it is text, put it in quotes of its own: {text!r}"
        raise row.error(field, f"{text!r} is not a Python literal ({problem})", hint)
    return text


def _guess_entry_point(row: Row, raw: list[tuple[str, dict[str, Any]]], reference: str | None, signature: str) -> str | None:
    """The name that every test calls (outermost first); else what the signature or the reference defines last; None for stdio."""
    inputs = [item["input"] for _, item in raw if item.get("form", "call") != "stdio" and isinstance(item["input"], str)]
    candidates: list[str] = []
    for index, source in enumerate(inputs):
        names = pysource.free_names(source)
        if index and candidates and names and not set(candidates) & set(names):
            raise row.error("tests", f"they call no function in common ({candidates[0]}, {names[0]})", "give entry_point, or one function a problem")
        candidates = [name for name in candidates if name in names] or candidates or names
    if candidates:
        return candidates[0]
    if inputs or not raw or any(item.get("form", "call") == "call" for _, item in raw):
        for code in (f"{signature}\n    pass" if signature else "", reference or "", row.text("solution", "")):
            if names := pysource.top_level_names(code):
                return names[-1]
    return None


def _identity(row: Row, source: str) -> str:
    for key in ("id", "task_id", "question_id"):
        value = row.data.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | type(None)):
            raise row.error(key, f"expected a string or a number, found {kind(value)}")
        if value is not None and str(value).strip():
            return str(value)
    return f"{source}/{row.line}" if row.line is not None else source


def _check_reference(row: Row, field: str, reference: str, entry_point: str | None) -> None:
    if not pysource.parses(reference):
        raise row.error(field, "it is not valid Python")
    if entry_point is not None and not pysource.defines(reference, entry_point):
        raise row.error(field, f"it does not define {entry_point!r}", "correct entry_point, or the reference")


def _from_humaneval(row: Row, source: str) -> Problem:
    """`test` (or `test_code`) defines `check(candidate)`, which the sandbox calls, or holds bare asserts. All of it is one graded test."""
    key = "test_code" if "test_code" in row.data else "test"
    test, prompt = row.text(key), row.text("prompt")
    if not pysource.parses(test):
        raise row.error(key, "it is not valid Python")
    if pysource.defines(test, "check") and pysource.arity_of(test, "check") != 1:
        raise row.error(key, "check must take one argument, the candidate")
    entry_point = row.identifier("entry_point")
    if entry_point is None:
        raise row.error("entry_point", "it is missing: the test needs to know which function it checks")
    preamble, signature, text = split_code_prompt(prompt, entry_point)
    body = row.optional("canonical_solution")
    reference = None
    if body is not None:
        reference = body if pysource.defines(body, entry_point) else f"{prompt.rstrip()}\n{body}"
        _check_reference(row, "canonical_solution", reference, entry_point)
        signature = signature or pysource.signature_of(reference, entry_point)
    return Problem(
        id=_identity(row, source),
        prompt=text,
        tests=(TestCase("graded", test, form="code"),),
        entry_point=entry_point,
        signature=signature,
        preamble=preamble,
        reference=reference,
        difficulty=row.choice("difficulty", Difficulty, "medium"),
        topic=row.text("topic", "general"),
        split=row.choice("split", Split, "test"),
        source=row.text("source", source),
        imported=True,
    )


def split_code_prompt(prompt: str, entry_point: str) -> tuple[str, str, str]:
    """HumanEval's prompt as (preamble, signature, text): imports and helpers, the header, the docstring. A prompt in prose is all text.

    The signature is everything down to the docstring: HumanEval/115 imports a module in between.
    """
    node = pysource.definition(prompt, entry_point)
    if node is None:
        return "", "", prompt
    lines = prompt.splitlines()
    preamble = "\n".join(lines[: node.lineno - 1]).strip()
    for statement in node.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
            signature = "\n".join(lines[node.lineno - 1 : statement.lineno - 1]).rstrip() or pysource.signature_of(prompt, entry_point)
            return preamble + "\n" if preamble else "", signature, inspect.cleandoc(statement.value.value).strip()
    return preamble + "\n" if preamble else "", pysource.signature_of(prompt, entry_point), prompt.strip()


def _from_mbpp(row: Row, source: str) -> Problem:
    """MBPP names the function only in its asserts, and its full and sanitised configurations name the same fields differently."""
    asserts = row.strings("test_list")
    prompt = row.text("prompt" if "prompt" in row.data else "text")
    code = row.optional("code")
    setup = "\n".join([*row.strings("test_imports"), row.text("test_setup_code", "")]).strip()
    for index, statement in enumerate(asserts):
        if not pysource.parses(statement):
            raise row.error(f"test_list[{index}]", "it is not valid Python")
    defined = pysource.top_level_names(code or "")  # one MBPP problem asks for a function called `sum`
    called = [name for name in pysource.called_names("\n".join(asserts), defined) if not code or name in defined]
    entry_point = row.identifier("entry_point") or next(iter(called), None)
    if entry_point is None:
        raise row.error("test_list", "no assert calls a function" + (" that code defines" if code else ""))
    if code is not None:
        _check_reference(row, "code", code, entry_point)
    plain = tuple(TestCase("graded", f"{setup}\n{statement}".lstrip(), form="code") for statement in asserts)
    extra = tuple(TestCase("held_out", f"{setup}\n{statement}".lstrip(), form="code") for statement in row.strings("challenge_test_list"))
    identity = _identity(row, source)
    return Problem(
        id=f"Mbpp/{identity}" if identity.isdigit() else identity,
        prompt=prompt,
        tests=(*(assign_roles(plain) if plain else ()), *extra),
        entry_point=entry_point,
        signature=pysource.signature_of(code or "", entry_point),
        reference=code,
        difficulty=row.choice("difficulty", Difficulty, "easy"),
        topic=row.text("topic", "general"),
        split=row.choice("split", Split, mbpp_split(identity)),
        source=row.text("source", source),
        imported=True,
    )


def mbpp_split(task_id: str) -> Split:
    """MBPP's published split by task number: 11 to 510 test, 511 to 600 validation, the others train."""
    number = int(task_id) if task_id.isdigit() else 11
    return "test" if 11 <= number <= 510 else "validation" if 511 <= number <= 600 else "train"
