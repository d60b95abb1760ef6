"""Lowering: turn a test into questions whose answers the trusted side can judge by itself.

`assert f(args) == literal` becomes the question `f(args)` and an expected value that the solution never sees. A test that
names anything but the entry point, literals and (inside arguments) a few pure built-ins cannot be lowered and goes to the
test child unmodified: applying `len`, `sorted` or `isinstance` to an answer is not left to the process that gave it.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
from dataclasses import dataclass
from typing import Any, Literal

from rlaif.errors import RlaifError
from rlaif.types import Problem, Role, TestCase

Relation = Literal["eq", "true", "false", "is", "near"]
_PURE = """range list tuple set dict frozenset str int float bool complex bytes bytearray chr ord len sum min max abs sorted reversed zip
enumerate"""
PURE = frozenset(_PURE.split())
"""Built-ins that may build an argument from literals. (A solution that patches them only changes its own question.)"""


MOST_AT_ONCE = 2**16
"""Characters of questions that are sent at once, where there are several."""


class NotLiteral(ValueError):
    """An expected value that is not a Python literal."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call the solution is asked to make, and what its value must be. `near`: within `tolerance` of `expected`."""

    source: str
    relation: Relation = "eq"
    expected: Any = None
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One test of the plan. No questions: it runs unmodified in the test child (or is stdio). `error`: it cannot be run at all."""

    test: TestCase
    questions: tuple[Question, ...] | None = None
    expected: Any = None
    error: str | None = None


@functools.lru_cache(maxsize=8192)
def plan(problem: Problem, roles: tuple[Role, ...], lowering: bool = True) -> tuple[Step, ...]:
    """How each test with these roles will run, in order."""
    return tuple(_step(test, problem.entry_point, lowering) for test in problem.tests if test.role in roles)


@functools.lru_cache(maxsize=8192)
def breaks(problem: Problem, roles: tuple[Role, ...]) -> frozenset[int]:
    """Which questions of the lowered tests, counted through, the solution must not be told before all earlier ones are answered.

    `decode('b') == 'a'` tells what `encode('a')` should give. So questions go out together only as long as the answer to none stands in the text of
    a later one, as a whole or as a part; what anyone would guess (a truth value, None, nothing) may. Where arguments are computed,
    `list(range(3))`, the text does not show what it tells.
    """
    questions = [question for step in plan(problem, roles) for question in step.questions or ()]
    found, start, size = set(), 0, 0
    for place, question in enumerate(questions):
        text = _bare(question.source)
        calls = sum(isinstance(node, ast.Call) for node in ast.walk(ast.parse(question.source)))
        size += len(text)
        if calls > 1 or size > MOST_AT_ONCE or any(_stands_in(earlier.expected, text) for earlier in questions[start:place]):
            found.add(place)
            start, size = place, len(text)
    return frozenset(found)


def _bare(text: str) -> str:
    """Without spaces and with brackets of one kind: (1, 2) and [1, 2] tell the same."""
    return text.translate(_BARE)


_BARE = str.maketrans("(){}", "[][]", " ")


def _stands_in(answer: Any, text: str) -> bool:
    if answer is None or isinstance(answer, bool):
        return False
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    bare = _bare(repr(answer)).strip("[]'\"")
    if not bare:
        return False
    if isinstance(answer, int | float):  # 6 stands in 6 and in 6.0, not in 16 or 0.6
        return re.search(rf"(?<![\w.]){re.escape(bare)}(?!\w|\.0*[1-9])", text) is not None
    return bare in text


def _step(test: TestCase, entry: str | None, lowering: bool) -> Step:
    if test.form == "stdio":
        return Step(test)
    try:
        tree = ast.parse(test.input)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Step(test, error=f"the test's input does not parse: {error}")
    if test.form == "code":
        return Step(test, _lower_module(tree, entry) if lowering and entry else None)
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return Step(test, error="the test's input must end in an expression")
    try:
        expected = literal(test.expected)
    except NotLiteral as error:
        return Step(test, error=str(error))
    if lowering and entry and _lowerable_body(tree.body, entry):
        return Step(test, (Question(ast.unparse(tree), "eq", expected),), expected)
    return Step(test, None, expected)


def literal(text: str) -> Any:
    """The value of a Python literal. Raises NotLiteral with a hint for people."""
    try:
        return fold(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError, ZeroDivisionError) as error:
        raise NotLiteral(f"the expected value {text[:60]!r} is not a Python literal ({error}); text needs quotes") from None


_FOLD: dict[type, Any] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow}


def fold(node: ast.expr) -> Any:
    """literal_eval, plus small arithmetic on numbers, float("inf"), set() and frozenset(). Raises ValueError."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items):
            return [fold(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(fold(item) for item in items)
        case ast.Set(elts=items):
            return {fold(item) for item in items}
        case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
            return {fold(key): fold(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
            value = fold(operand)
            if type(value) not in (int, float, complex, bool):
                raise ValueError("a sign before something that is not a number")
            return -value if isinstance(op, ast.USub) else +value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _FOLD:
            a, b = fold(left), fold(right)
            if type(a) not in (int, float, complex, bool) or type(b) not in (int, float, complex, bool):
                raise ValueError("arithmetic on something that is not a number")
            if isinstance(op, ast.Pow) and (abs(a) > 10**6 or abs(b) > 400):
                raise ValueError("a power that large is not folded")
            return _FOLD[type(op)](a, b)
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))], keywords=[]):
            return float(text)
        case ast.Call(func=ast.Name(id="set" | "frozenset" as name), args=args, keywords=[]) if len(args) <= 1:
            items = fold(args[0]) if args else ()
            return set(items) if name == "set" else frozenset(items)
    raise ValueError(f"not a literal: {type(node).__name__}")


def _pure(node: ast.AST, local: frozenset[str]) -> bool:
    """True if an argument is built from literals, comprehension variables and pure built-ins only."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in local
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return name in PURE and name not in local and all(_pure(arg, local) for arg in args) and all(_pure(k.value, local) for k in keywords)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            bound = set(local)
            for generator in node.generators:
                if not _pure(generator.iter, frozenset(bound)):
                    return False
                bound |= {name.id for name in ast.walk(generator.target) if isinstance(name, ast.Name)}
                if not all(_pure(test, frozenset(bound)) for test in generator.ifs):
                    return False
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            return all(_pure(part, frozenset(bound)) for part in parts)
        case ast.Lambda(args=args, body=body):
            names = {arg.arg for arg in (*args.args, *args.posonlyargs, *args.kwonlyargs)} | {a.arg for a in (args.vararg, args.kwarg) if a}
            return not args.defaults and not args.kw_defaults and _pure(body, local | names)
        case ast.List() | ast.Tuple() | ast.Set() | ast.Dict() | ast.UnaryOp() | ast.BinOp() | ast.Starred() | ast.Compare() | ast.BoolOp():
            children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
            return all(_pure(child, local) for child in children)
        case ast.IfExp() | ast.Subscript() | ast.Slice() | ast.JoinedStr() | ast.FormattedValue():
            return all(_pure(child, local) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
    return False


def _call(node: ast.AST, entry: str, names: frozenset[str], objects: frozenset[str]) -> bool:
    """True for `entry(pure...)`, `object.method(pure...)` and chains of them."""
    if not isinstance(node, ast.Call):
        return False
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    if not all(_pure(arg, names) or _object(arg, entry, names, objects) for arg in arguments):
        return False
    match node.func:
        case ast.Name(id=name):
            return name == entry
        case ast.Attribute(value=value, attr=attr):
            return not attr.startswith("_") and _object(value, entry, names, objects)
        case ast.Call():
            return _call(node.func, entry, names, objects)
    return False


def _object(node: ast.AST, entry: str, names: frozenset[str], objects: frozenset[str]) -> bool:
    """An expression that stands for one of the solution's objects."""
    match node:
        case ast.Name(id=name):
            return name in objects
        case ast.Attribute(value=value, attr=attr):
            return not attr.startswith("_") and _object(value, entry, names, objects)
    return _call(node, entry, names, objects)


def _lowerable_body(body: list[ast.stmt], entry: str) -> bool:
    """Statements that only make arguments and objects, then an expression whose value is the solution's own answer."""
    names: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    for statement in body[:-1]:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != entry and name not in PURE:
                if _pure(value, names):
                    names |= {name}
                elif _object(value, entry, names, objects):
                    names, objects = names - {name}, objects | {name}
                else:
                    return False
            case ast.Expr(value=value) if _object(value, entry, names, objects):
                pass
            case _:
                return False
    last = body[-1]
    assert isinstance(last, ast.Expr)
    return _answer(last.value, entry, names, objects)


def _answer(node: ast.expr, entry: str, names: frozenset[str], objects: frozenset[str]) -> bool:
    """The solution's answer itself: a call, an object, a mutated argument, or a display of these."""
    if isinstance(node, ast.Name):
        return node.id in names or node.id in objects
    if isinstance(node, ast.List | ast.Tuple):
        return bool(node.elts) and all(_answer(item, entry, names, objects) for item in node.elts)
    return _object(node, entry, names, objects)


def _lower_module(tree: ast.Module, entry: str) -> tuple[Question, ...] | None:
    """The questions of a module of asserts, or of one that defines check(candidate); None if any part of it is more than that."""
    body = tree.body
    checks = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if checks and entry != "check":
        rest = [node for node in body if node is not checks[0] and not _harmless(node)]
        if rest or len(checks) > 1 or checks[0].decorator_list or len(checks[0].args.args) != 1 or checks[0].args.args[0].arg != "candidate":
            return None
        body, called = checks[0].body, "candidate"
    else:
        called = entry
    questions: list[Question] = []
    for statement in body:
        if _harmless(statement):
            continue
        question = _lower_assert(statement, called, entry)
        if question is None:
            return None
        questions.append(question)
    return tuple(questions) or None


def _harmless(node: ast.stmt) -> bool:
    """Statements without effect on the verdict: METADATA, docstrings, `assert True`, a bare name such as `print`."""
    match node:
        case ast.Assign(targets=[ast.Name(id="METADATA")]) | ast.Pass():
            return True
        case ast.Expr(value=ast.Constant() | ast.Name(id="print")):
            return True
        case ast.Assert(test=ast.Constant(value=True)):
            return True
    return False


def _lower_assert(node: ast.stmt, called: str, entry: str) -> Question | None:
    if not isinstance(node, ast.Assert):
        return None
    test = node.test
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            relation, call, value = "false", operand, None
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            call, value = (left, right) if _is_call(left, called) else (right, left)
            relation = "eq"
            if not _is_call(call, called):
                return None
        case ast.Compare(left=left, ops=[ast.Is()], comparators=[ast.Constant(value=True | False | None) as right]):
            relation, call, value = "is", left, right
        case ast.Compare(left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(op=ast.Sub()) as difference], keywords=[]), ops=[ast.Lt()]):
            return _near(difference.left, difference.right, test.comparators[0], called, entry)
        case _:
            relation, call, value = "true", test, None
    if not _is_call(call, called):
        return None
    try:
        expected = None if value is None else fold(value)
    except (ValueError, TypeError, RecursionError, OverflowError, ZeroDivisionError):
        return None
    return Question(_source(call, entry), relation, expected)  # type: ignore[arg-type]


def _near(left: ast.expr, right: ast.expr, limit: ast.expr, called: str, entry: str) -> Question | None:
    if not _is_call(left, called):
        return None
    try:
        expected, tolerance = fold(right), fold(limit)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        return None
    if type(expected) not in (int, float) or type(tolerance) not in (int, float):
        return None
    return Question(_source(left, entry), "near", expected, tolerance)


def _is_call(node: ast.AST, called: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == called
        and all(_pure(arg, frozenset()) for arg in node.args)
        and all(keyword.arg and _pure(keyword.value, frozenset()) for keyword in node.keywords)
    )


def _source(call: ast.AST, entry: str) -> str:
    assert isinstance(call, ast.Call)
    return ast.unparse(ast.Call(ast.Name(entry), call.args, call.keywords))


def check_plan(steps: tuple[Step, ...]) -> None:
    """Raises RlaifError for the first test that cannot be run at all."""
    for step in steps:
        if step.error:
            raise RlaifError("A test cannot be run", step.error)
