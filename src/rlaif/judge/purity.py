"""What a piece of a syntax tree can do: which conditions are constant, which expressions and functions have no effect."""

from __future__ import annotations

import ast
from collections import Counter

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_PURE_CALLS_TEXT = """
    abs all any ascii bin bool bytes chr complex dict divmod enumerate filter float format frozenset hash hex id int isinstance
    issubclass len list map max min oct ord pow range repr reversed round set slice sorted str sum tuple type zip
"""

_PURE_CALLS = frozenset(_PURE_CALLS_TEXT.split())

_IMPURE = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)


def constant_truth(test: ast.expr) -> bool | None:
    """True or False if the condition is one of constants only, else None."""
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.JoinedStr(values=values):
            return True if any(isinstance(value, ast.Constant) and value.value for value in values) else None
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return (
                bool(elements)
                if not any(isinstance(element, ast.Starred) for element in elements) and all(constant_truth(e) is not None for e in elements)
                else None
            )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = constant_truth(operand)
            return None if truth is None else not truth
        case ast.BoolOp(op=op, values=values):
            truths = [constant_truth(value) for value in values]
            if isinstance(op, ast.And):
                return False if False in truths else (None if None in truths else True)
            return True if True in truths else (None if None in truths else False)
        case ast.Compare(left=ast.Constant(value=left), ops=[op], comparators=[ast.Constant(value=right)]):
            if isinstance(op, ast.Eq | ast.Is):
                return type(left) is type(right) and left == right
            if isinstance(op, ast.NotEq | ast.IsNot):
                return not (type(left) is type(right) and left == right)
            if isinstance(left, int | float) and isinstance(right, int | float):
                for kind, truth in ((ast.Lt, left < right), (ast.LtE, left <= right), (ast.Gt, left > right), (ast.GtE, left >= right)):
                    if isinstance(op, kind):
                        return truth
    return None


def is_pure_expression(value: ast.AST, pure_functions: set[str]) -> bool:
    """Names, constants, operators and calls known to have no effect; it may still raise."""
    for node in ast.walk(value):
        if isinstance(node, _IMPURE):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and (node.func.id in _PURE_CALLS or node.func.id in pure_functions)):
            return False
    return True


def is_identity(node: FunctionNode) -> bool:
    """`def f(x): return x`, whatever else it claims; the claims are gone by the time this is true."""
    match node:
        case ast.FunctionDef(args=ast.arguments(posonlyargs=[], args=[ast.arg(arg=name)], vararg=None, kwonlyargs=[], kwarg=None), decorator_list=[]):
            match node.body:
                case [ast.Return(value=ast.Name(id=returned))]:
                    return returned == name
    return False


def is_pure_function(node: FunctionNode) -> bool:
    """No stores outside its own names, no unknown calls (its own recursion aside), no generator."""
    if isinstance(node, ast.AsyncFunctionDef) or node.decorator_list:
        return False
    for child in ast.walk(node):
        if isinstance(child, ast.Global | ast.Nonlocal | ast.AugAssign | ast.Delete | ast.Raise | ast.Assert | ast.With | ast.Try | ast.While):
            return False
        if isinstance(child, ast.Attribute | ast.Subscript) and isinstance(child.ctx, ast.Store):
            return False
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.AsyncFunctionDef) and child is not node:
            return False
    return all(is_pure_expression(statement, {node.name}) for statement in node.body)


def root_name(node: ast.expr) -> str:
    """`a` of `a.b[c].d`; empty if it does not start with a name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def loads_in(node: ast.AST) -> Counter[str]:
    """How often each name is read (or deleted) below `node`."""
    return Counter(child.id for child in ast.walk(node) if isinstance(child, ast.Name) and not isinstance(child.ctx, ast.Store))


def bound_by(node: ast.stmt) -> set[str]:
    """Names that a module statement binds."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {(alias.asname or alias.name).split(".")[0] for alias in names}
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)}


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(isinstance(child, ast.Name) and child.id == "__name__" for child in ast.walk(node.test))
