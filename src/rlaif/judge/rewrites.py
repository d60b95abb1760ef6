"""Programs written differently that compute the same: correct code that is not the reference.

Without them a judge trained on references and their mutants learns that whatever departs from the usual form is wrong. Each rewrite is meant
to preserve meaning; the label still comes from execution.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}
_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


def rewrites(source: str, limit: int, seed: int) -> list[str]:
    """At most `limit` different rewrites of `source`, some of several steps; the same seed gives the same ones. Empty if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    rng = random.Random(seed)
    original = ast.unparse(tree)
    found: dict[str, None] = {}
    for _ in range(limit * 8):
        candidate = copy.deepcopy(tree)
        for _ in range(rng.choice((1, 1, 2, 2, 3))):
            edits = list(_edits(candidate))
            if edits:
                rng.choice(edits)()
                ast.fix_missing_locations(candidate)
        text = ast.unparse(candidate)
        if text != original:
            found.setdefault(text)
        if len(found) >= limit:
            break
    return [f"{text}\n" for text in found]


def _edits(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """Every edit that can be made to `tree` in place."""
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                for index, item in enumerate(value):
                    if isinstance(item, ast.expr) and (new := _expression(item)):
                        yield _setter(value, index, new)
                    elif isinstance(item, ast.stmt) and (block := _statement(item, value[index + 1 :])):
                        yield _splicer(value, index, block)
            elif isinstance(value, ast.expr) and (new := _expression(value)):
                yield _attribute_setter(node, name, new)


def _setter(values: list, index: int, new: ast.AST) -> Callable[[], None]:
    def edit() -> None:
        values[index] = new

    return edit


def _splicer(values: list, index: int, block: tuple[int, list[ast.stmt]]) -> Callable[[], None]:
    def edit() -> None:
        values[index : index + block[0]] = block[1]

    return edit


def _attribute_setter(node: ast.AST, name: str, new: ast.AST) -> Callable[[], None]:
    return lambda: setattr(node, name, new)


def _negated(test: ast.expr) -> ast.expr:
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _NEGATED:
            return ast.Compare(left, [_NEGATED[type(op)]()], [right])
    return ast.UnaryOp(ast.Not(), test)


def _expression(node: ast.expr) -> ast.expr | None:
    """Another way to write one expression."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _FLIPPED:
            return ast.Compare(right, [_FLIPPED[type(op)]()], [left])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ast.IfExp(_negated(test), orelse, body)
        case ast.BinOp(left=ast.Constant(value=int()) as left, op=ast.Add() | ast.Mult() as op, right=right):
            return ast.BinOp(right, op, left)
        case ast.BinOp(left=left, op=ast.Mult() as op, right=ast.Constant(value=int()) as right):
            return ast.BinOp(right, op, left)
        case ast.ListComp(generators=generators, elt=element) if not any(generator.is_async for generator in generators):
            return ast.Call(ast.Name("list", ast.Load()), [ast.GeneratorExp(element, generators)], [])
        case ast.Call(func=ast.Name(id="range"), args=[stop], keywords=[]):
            return ast.Call(ast.Name("range", ast.Load()), [ast.Constant(0), stop], [])
        case ast.Call(func=ast.Name(id="sum"), args=[ast.GeneratorExp() as inner], keywords=[]):
            return ast.Call(ast.Name("sum", ast.Load()), [ast.ListComp(inner.elt, inner.generators)], [])
        case ast.List(elts=[], ctx=ast.Load()):
            return ast.Call(ast.Name("list", ast.Load()), [], [])
        case ast.Dict(keys=[]):
            return ast.Call(ast.Name("dict", ast.Load()), [], [])
        case ast.UnaryOp(op=ast.Not(), operand=ast.Compare() as test):
            return _negated(test)
    return None


def _statement(node: ast.stmt, rest: list[ast.stmt]) -> tuple[int, list[ast.stmt]] | None:
    """(statements replaced, their replacement) from `node` on; `rest` is what follows it in its block."""
    match node:
        case ast.AugAssign(target=ast.Name(id=name), op=ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod() as op, value=value):
            return 1, [ast.Assign([ast.Name(name, ast.Store())], ast.BinOp(ast.Name(name, ast.Load()), op, value))]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.BinOp(left=ast.Name(id=other), op=op, right=value)) if name == other:
            return 1, [ast.AugAssign(ast.Name(name, ast.Store()), op, value)] if isinstance(op, ast.Sub | ast.Mult | ast.Mod) else [node]
        case ast.If(test=test, body=body, orelse=[_, *_] as orelse):
            return 1, [ast.If(_negated(test), orelse, body)]
        case ast.If(test=test, body=[*_, ast.Return()] as body, orelse=[]) if rest and isinstance(rest[-1], ast.Return):
            return 1 + len(rest), [ast.If(test, body, rest)]
        case ast.Return(value=ast.ListComp(elt=element, generators=[ast.comprehension(target=target, iter=source, ifs=tests, is_async=0)])):
            return 1, _as_loop(element, target, source, tests)
        case ast.Return(value=ast.Call(func=ast.Name(id="sum"), args=[ast.GeneratorExp() as inner], keywords=[])) if len(inner.generators) == 1:
            only = inner.generators[0]
            add = ast.AugAssign(ast.Name("running", ast.Store()), ast.Add(), inner.elt)
            loop = ast.For(only.target, only.iter, [ast.If(_all(only.ifs), [add], []) if only.ifs else add], [])
            return 1, [ast.Assign([ast.Name("running", ast.Store())], ast.Constant(0)), loop, ast.Return(ast.Name("running", ast.Load()))]
        case ast.Return(value=ast.IfExp(test=test, body=body, orelse=orelse)):
            return 1, [ast.If(test, [ast.Return(body)], []), ast.Return(orelse)]
        case ast.Return(value=ast.BinOp() | ast.Call() as value):
            return 1, [ast.Assign([ast.Name("answer", ast.Store())], value), ast.Return(ast.Name("answer", ast.Load()))]
    return None


def _as_loop(element: ast.expr, target: ast.expr, source: ast.expr, tests: list[ast.expr]) -> list[ast.stmt]:
    collected = ast.Name("collected", ast.Load())
    append: ast.stmt = ast.Expr(ast.Call(ast.Attribute(collected, "append", ast.Load()), [element], []))
    body: ast.stmt = ast.If(_all(tests), [append], []) if tests else append
    return [ast.Assign([ast.Name("collected", ast.Store())], ast.List([], ast.Load())), ast.For(target, source, [body], []), ast.Return(collected)]


def _all(tests: list[ast.expr]) -> ast.expr:
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)
