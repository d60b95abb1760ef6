"""Small mistakes put into a correct program, to see whether its tests notice (mutation testing, DeMillo, Lipton and Sayward 1978).

Tests that let a wrong program pass reward it. The mistakes are those that models make: off by one, a comparison turned, a wrong
operator or constant, a condition negated, a branch or a statement left out, arguments swapped, the wrong thing returned.
A mutant may happen to mean the same as its source (`x < 1` and `x <= 0` for integers): a survivor is a question, not a verdict.
"""

from __future__ import annotations

import ast
import copy
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from rlaif.problems import pysource

Edit = tuple[str, int, Callable[[Any], ast.AST | None]]
"""(kind, index of the node in ast.walk order, what becomes of the node; None removes the statement)."""

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mult,),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "sum": "max", "set": "list", "zip": "enumerate"}
_WRAPPERS = frozenset({"abs", "sorted", "reversed", "set", "round", "list", "tuple", "int", "str", "dict", "len"})
_METHODS = {"lower": "upper", "upper": "lower", "append": "extend", "startswith": "endswith", "endswith": "startswith", "lstrip": "rstrip"}
_METHODS |= {"rstrip": "lstrip", "find": "rfind", "keys": "values", "values": "keys", "pop": "popitem", "strip": "lstrip", "title": "capitalize"}


def mutants(source: str, limit: int, seed: int, *, may_hang: bool = False) -> list[str]:
    """At most `limit` programs, each one mistake away from `source`, all different from it and from each other.

    Kinds of mistake take turns, so that a long expression does not crowd out the rest; the same seed gives the same mutants.
    may_hang: also mutate what drives a `while` loop, whose mutants tend to run until the deadline.
    Raises ValueError if `source` does not parse.
    """
    tree = pysource.parse_or_none(source)
    if tree is None:
        raise ValueError("the source is not valid Python")
    original = ast.unparse(tree)
    rng = random.Random(seed)
    by_kind: dict[str, list[Edit]] = defaultdict(list)
    for edit in _edits(tree, set() if may_hang else _loop_drivers(tree)):
        by_kind[edit[0]].append(edit)
    queues = [by_kind[kind] for kind in sorted(by_kind)]
    rng.shuffle(queues)
    for queue in queues:
        rng.shuffle(queue)
    seen, found = {original}, []
    while len(found) < limit and any(queues):
        for queue in queues:
            if queue and len(found) < limit:
                text = _apply(tree, queue.pop())
                if text is not None and text not in seen:
                    seen.add(text)
                    found.append(text)
    return found


def _apply(tree: ast.Module, edit: Edit) -> str | None:
    """The program with this one edit, or None if it would not be a program."""
    _, index, change = edit
    changed = copy.deepcopy(tree)
    target = next(node for i, node in enumerate(ast.walk(changed)) if i == index)
    _Replace(target, change(target)).visit(changed)
    text = ast.unparse(ast.fix_missing_locations(changed))
    return text if pysource.parses(text) else None  # for example a `nonlocal` whose assignment is gone


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST | None) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST | None:
        if node is not self.target:
            return super().visit(node)
        # A block must not become empty: a removed statement leaves `pass`.
        return self.replacement if self.replacement is not None else ast.Pass()


def _loop_drivers(tree: ast.Module) -> set[int]:
    """Nodes whose change is likely to make a `while` loop run for ever: its test, and the statements that set a name the test reads."""
    drivers: set[int] = set()
    for loop in ast.walk(tree):
        if not isinstance(loop, ast.While):
            continue
        drivers.update(id(node) for node in ast.walk(loop.test))
        forever = isinstance(loop.test, ast.Constant)
        names = {node.id for node in ast.walk(loop.test) if isinstance(node, ast.Name)}
        for statement in [child for child in ast.walk(loop) if isinstance(child, ast.stmt) and child is not loop]:
            simple = not hasattr(statement, "body")
            touched = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            if forever or (simple and names & touched):
                drivers.update(id(node) for node in ast.walk(statement))
    return drivers


def _edits(tree: ast.Module, spared: set[int]) -> Iterator[Edit]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and node.body and isinstance(node.body[0], ast.Expr)
    }
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    # The default of an argument is often never used by a test that passes the argument: it is fair game, annotations are not.
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in spared or id(node) in docstrings or id(node) in annotations:
            continue
        for kind, change in _changes(node):
            yield kind, index, change


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], ast.AST | None]]]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                for other in _COMPARE.get(type(op), ()):
                    kind = "boundary" if other in (ast.Lt, ast.LtE, ast.Gt, ast.GtE) else "comparison"
                    yield kind, _with(ops=[*ops[:place], other(), *ops[place + 1 :]])
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            if not _is_text(node):
                for other in _ARITHMETIC.get(type(op), ()):
                    yield "arithmetic", _with(op=other())
            if isinstance(node, ast.AugAssign):
                yield "statement", lambda _: None
        case ast.BoolOp(op=op):
            yield "logic", _with(op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not(), operand=operand) | ast.UnaryOp(op=ast.USub(), operand=operand):
            yield "negation", lambda _, operand=operand: operand
        case ast.Constant(value=bool(value)):
            yield "constant", _with(value=not value)
        case ast.Constant(value=int(value)):
            yield "off_by_one", _with(value=value + 1)
            yield "off_by_one", _with(value=value - 1)
        case ast.Constant(value=float(value)):
            yield "constant", _with(value=value + 1.0)
        case ast.Constant(value=str(value)):
            yield "constant", _with(value=value + "x" if not value else "")
        case ast.If(test=test, orelse=orelse):
            yield "condition", _with(test=ast.UnaryOp(ast.Not(), test))
            if orelse:
                yield "branch", lambda old: ast.If(old.test, old.body, [])
            yield "branch", lambda old: ast.If(ast.Constant(False), old.body, old.orelse)
        case ast.IfExp():
            yield "condition", lambda old: ast.IfExp(old.test, old.orelse, old.body)
        case ast.comprehension(ifs=[_, *_]):
            yield "branch", _with(ifs=[])
        case ast.Call(func=ast.Name(id="range"), args=args):
            last = len(args) - 1 if len(args) < 3 else 1
            yield "off_by_one", _with(args=[*args[:last], ast.BinOp(args[last], ast.Sub(), ast.Constant(1)), *args[last + 1 :]])
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield "call", _with(func=ast.Name(_CALLS[name], ast.Load()))
            if name in _WRAPPERS and len(node.args) == 1 and not node.keywords:
                yield "unwrapped", lambda old: old.args[0]
        case ast.Call(func=ast.Attribute(attr=name)) if name in _METHODS:
            yield "call", lambda old: ast.Call(ast.Attribute(old.func.value, _METHODS[old.func.attr], ast.Load()), old.args, old.keywords)
        case ast.Call(func=ast.Name(id=name), args=[only], keywords=[]) if name in _WRAPPERS:
            yield "unwrapped", lambda _, only=only: only
        case ast.Call(args=[first, second, *rest]):
            yield "arguments", _with(args=[second, first, *rest])
        case ast.Subscript(slice=ast.Name() | ast.BinOp() as index, ctx=ast.Load()):
            yield "off_by_one", _with(slice=ast.BinOp(index, ast.Add(), ast.Constant(1)))
        case ast.Tuple(elts=[first, second], ctx=ast.Load()):
            yield "arguments", _with(elts=[second, first])
        case ast.Dict(keys=[None, None], values=[first, second]):
            yield "arguments", _with(values=[second, first])
        case ast.Return(value=ast.AST() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", _with(value=ast.Constant(None))
        case ast.Yield(value=ast.AST()):
            yield "return", _with(value=ast.Constant(None))
        case ast.Continue() | ast.Break() | ast.Raise() | ast.Delete():
            yield "statement", lambda _: None
        case ast.Expr(value=ast.Call()):
            yield "statement", lambda _: None
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield "statement", lambda _: None


def _with(**fields: object) -> Callable[[ast.AST], ast.AST]:
    """An edit that sets fields of the node. The nodes among the values are copied: they belong to the original tree."""

    def change(node: ast.AST) -> ast.AST:
        for name, value in fields.items():
            setattr(node, name, copy.deepcopy(value))
        return node

    return change


def _is_text(node: ast.AST) -> bool:
    """`"a" + x` minus anything is a TypeError on every input: a mutant that dies too easily says nothing about the tests."""
    return any(
        isinstance(child, ast.JoinedStr) or (isinstance(child, ast.Constant) and isinstance(child.value, str)) for child in ast.iter_child_nodes(node)
    )
