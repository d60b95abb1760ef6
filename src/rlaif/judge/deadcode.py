"""Drop what cannot change a program's result: decoys, padding, fake logs, claims in bare strings.

Conservative on purpose: an expression is dropped only if it is built from names, constants, operators and calls known to have no effect.
Statements are visited until nothing changes any more, because one removal exposes the next.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from rlaif.judge.purity import (
    FunctionNode,
    bound_by,
    constant_truth,
    is_identity,
    is_main_guard,
    is_pure_expression,
    is_pure_function,
    loads_in,
    root_name,
)

_ROUNDS = 20
MAX_NODES = 4_000
"""Nodes of reachable code; a judge could not read a tenth of that, and time here must not be the policy's to spend."""

_LOG_CALLS = frozenset({"print", "warn", "debug", "info", "warning", "error", "critical", "log"})
_LOG_OWNERS = frozenset({"logging", "logger", "log", "warnings", "sys", "stdout", "stderr"})


def drop_dead_code(tree: ast.Module, entry_point: str | None) -> None:
    """Rewrite `tree` in place. With an entry point only what it can reach stays; without one (a script) all effects and output stay."""
    before = ""
    for _ in range(_ROUNDS):
        if entry_point is not None:
            _keep_reachable(tree, entry_point)
        if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")
        _Simplifier(tree, script=entry_point is None).visit(tree)
        _drop_unused_bindings(tree, entry_point)
        after = ast.dump(tree)
        if after == before:
            return
        before = after


class _Simplifier(ast.NodeTransformer):
    """Local rewrites: constant conditions, statements without effect, code after a jump, identity helpers."""

    def __init__(self, tree: ast.Module, *, script: bool) -> None:
        self.script = script
        self.functions = {node.name: node for node in ast.walk(tree) if isinstance(node, FunctionNode)}
        self.identities = {name for name, node in self.functions.items() if is_identity(node)}
        self.pure = {name for name, node in self.functions.items() if is_pure_function(node)}

    # Blocks -------------------------------------------------------------------------------------------------------------------------

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = self._block(node.body, keep_one=False)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, name, self._block(value, keep_one=name == "body"))
            elif isinstance(value, list):
                visited = [(item, self.visit(item) if isinstance(item, ast.AST) else item) for item in value]
                value[:] = [new for item, new in visited if new is not None or item is None]  # `{**x}` has None among its keys
            elif isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
        return node

    def _block(self, statements: list[ast.stmt], *, keep_one: bool) -> list[ast.stmt]:
        kept: list[ast.stmt] = []
        for statement in statements:
            for new in self._statement(statement):
                kept.append(new)
                if isinstance(new, ast.Return | ast.Raise | ast.Break | ast.Continue):
                    return _returned_directly(_without_overwritten(kept))
        kept = _without_overwritten(kept)
        return kept or ([ast.Pass()] if keep_one else [])

    def _statement(self, node: ast.stmt) -> Iterable[ast.stmt]:
        node = self.visit(node)
        match node:
            case ast.Pass():
                return []
            case ast.Expr(value=value) if self._is_noise(value):
                return []
            case ast.Assert(test=test) if constant_truth(test) is True:
                return []
            case ast.If(test=test) if (truth := constant_truth(test)) is not None:
                return [new for new in (node.body if truth else node.orelse) if not isinstance(new, ast.Pass)]
            case ast.If(body=[ast.Pass()], orelse=[]) if self._is_pure(node.test):
                return []
            case ast.If(body=[ast.Pass()], orelse=orelse) if orelse:
                return [ast.copy_location(ast.If(ast.UnaryOp(ast.Not(), node.test), orelse, []), node)]
            case ast.While(test=test, orelse=[]) if constant_truth(test) is False:
                return []
            case ast.For(body=[ast.Pass()], orelse=[]) if self._is_pure(node.iter):
                return []
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name(id=source)) if target == source:
                return []
            case ast.Try(body=[ast.Pass()]):
                return [new for new in node.finalbody if not isinstance(new, ast.Pass)]
        return [node]

    def _is_noise(self, value: ast.expr) -> bool:
        if isinstance(value, ast.Call) and not self.script:
            function = value.func
            logs = (isinstance(function, ast.Name) and function.id == "print") or (
                isinstance(function, ast.Attribute) and function.attr in _LOG_CALLS | {"write", "flush"} and root_name(function) in _LOG_OWNERS
            )
            if logs:
                return all(self._is_pure(argument) for argument in (*value.args, *(keyword.value for keyword in value.keywords)))
        return not any(isinstance(node, ast.Attribute | ast.Subscript) for node in ast.walk(value)) and self._is_pure(value)

    def _is_pure(self, value: ast.expr) -> bool:
        return is_pure_expression(value, self.pure)

    # Expressions --------------------------------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id=name), args=[only], keywords=[]) if name in self.identities and not isinstance(only, ast.Starred):
                return only
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [
            decorator for decorator in node.decorator_list if not (isinstance(decorator, ast.Name) and decorator.id in self.identities)
        ]
        self.generic_visit(node)
        _drop_parameter_copy(node)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        truth = constant_truth(node.test)
        return node if truth is None else node.body if truth else node.orelse

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        skipped = isinstance(node.op, ast.And)  # `True and x` is x; `False or x` is x
        values = [value for value in node.values[:-1] if constant_truth(value) is not skipped] + node.values[-1:]
        return values[0] if len(values) == 1 else ast.copy_location(ast.BoolOp(node.op, values), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Subscript(value=ast.Tuple(elts=elements) | ast.List(elts=elements), slice=ast.Constant(value=int(index)), ctx=ast.Load()):
                if (
                    -len(elements) <= index < len(elements)
                    and not any(isinstance(element, ast.Starred) for element in elements)
                    and all(map(self._is_pure, elements))
                ):
                    return elements[index]
        return node


def _drop_parameter_copy(node: ast.FunctionDef) -> None:
    """`def f(p): x = p; ...` with no other use of p is `def f(x): ...`."""
    match node.body[0]:
        case ast.Assign(targets=[ast.Name(id=copy)], value=ast.Name(id=name)) if len(node.body) > 1:
            parameters = [argument for argument in (*node.args.posonlyargs, *node.args.args) if argument.arg == name]
            uses = sum(isinstance(child, ast.Name) and child.id == name for statement in node.body for child in ast.walk(statement))
            taken = {child.arg for child in ast.walk(node) if isinstance(child, ast.arg)}
            if parameters and uses == 1 and copy not in taken:
                parameters[0].arg = copy
                del node.body[0]


def _without_overwritten(block: list[ast.stmt]) -> list[ast.stmt]:
    """Drop `x = pure` where a later `x = ...` of the same block comes before anything mentions x."""
    kept = list(block)
    for index in range(len(block) - 1, -1, -1):
        match block[index]:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_pure_expression(value, set()):
                for later in block[index + 1 :]:
                    mentioned = any(isinstance(child, ast.Name) and child.id == name for child in ast.walk(later))
                    simple = isinstance(later, ast.Assign | ast.Expr | ast.AugAssign | ast.FunctionDef | ast.ClassDef)
                    overwrites = isinstance(later, ast.Assign) and [ast.dump(t) for t in later.targets] == [ast.dump(ast.Name(name, ast.Store()))]
                    if overwrites and not loads_in(later.value)[name]:  # type: ignore[attr-defined]
                        kept.remove(block[index])
                        break
                    if mentioned or not simple:
                        break
    return kept


def _returned_directly(block: list[ast.stmt]) -> list[ast.stmt]:
    """`x = value; return x` is `return value`: the name in between says nothing."""
    match block:
        case [*before, ast.Assign(targets=[ast.Name(id=name)], value=value), ast.Return(value=ast.Name(id=returned))] if name == returned:
            return [*before, ast.Return(value)]
    return block


class _Unbind(ast.NodeTransformer):
    """Remove pure assignments to names that are never read, within one scope's own statements."""

    def __init__(self, dead: set[str], pure: set[str]) -> None:
        self.dead, self.pure = dead, pure

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if all(isinstance(target, ast.Name) and target.id in self.dead for target in node.targets):
            return None if is_pure_expression(node.value, self.pure) else ast.copy_location(ast.Expr(node.value), node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | None:
        return None if isinstance(node.target, ast.Name) and node.target.id in self.dead and is_pure_expression(node.value, self.pure) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        dead = isinstance(node.target, ast.Name) and node.target.id in self.dead
        return None if dead and (node.value is None or is_pure_expression(node.value, self.pure)) else node

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.AST:
        self.generic_visit(node)
        return node.value if node.target.id in self.dead else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node  # a class's own names are its attributes; see _drop_unused_bindings

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]


def _drop_unused_bindings(tree: ast.Module, entry_point: str | None) -> None:
    functions = [node for node in ast.walk(tree) if isinstance(node, FunctionNode)]
    pure = {node.name for node in functions if is_pure_function(node)}
    shared = {name for node in ast.walk(tree) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    for scope in (tree, *functions):
        loads = loads_in(scope)
        # Module names are read by the outside too: only the entry point is, by contract. `x += 1` alone does not read x for anyone.
        bound = {node.id for node in ast.walk(scope) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        dead = {name for name in bound if not loads[name]} - shared - {entry_point}
        remover = _Unbind(dead, pure)
        scope.body = [new for statement in scope.body if (new := remover.visit(statement)) is not None]
        nested = [node for node in scope.body if isinstance(node, FunctionNode | ast.ClassDef)] if scope is not tree else []
        scope.body = [node for node in scope.body if node not in nested or loads[node.name]]  # type: ignore[attr-defined]
        if not scope.body and scope is not tree:
            scope.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = attributes | set(loads_in(node)) | {"__slots__"}
            node.body = [
                child
                for child in node.body
                if not (
                    isinstance(child, ast.Assign)
                    and isinstance(child.value, ast.Constant)
                    and all(isinstance(target, ast.Name) and target.id not in names for target in child.targets)
                )
            ] or [ast.Pass()]
    _fill_empty_blocks(tree)


def _fill_empty_blocks(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case)
            and hasattr(node, "body")
            and isinstance(node.body, list)
            and not node.body
        ):
            node.body = [ast.Pass()]


def _keep_reachable(tree: ast.Module, entry_point: str) -> None:
    """Keep the module statements that the entry point needs: the last definition of each name it reaches, and what changes those."""
    body = [node for node in tree.body if not is_main_guard(node) and not isinstance(node, ast.Expr | ast.Assert)]
    # An earlier definition of the same name is a decoy; conditional ones stay, for which of them wins is not known here.
    last = {name: index for index, node in enumerate(body) if isinstance(node, FunctionNode | ast.ClassDef) for name in bound_by(node)}
    body = [
        node
        for index, node in enumerate(body)
        if not (
            isinstance(node, FunctionNode | ast.ClassDef) and last[node.name] != index and not _used_between(body, index, last[node.name], node.name)
        )
    ]
    reached, pending = set(), {entry_point.split(".")[0]}
    kept: set[int] = set()
    while pending:
        name = pending.pop()
        reached.add(name)
        for index, node in enumerate(body):
            touches = name in bound_by(node) or any(
                isinstance(child, ast.Attribute | ast.Subscript) and isinstance(child.ctx, ast.Store) and root_name(child) == name
                for child in ast.walk(node)
            )
            if index not in kept and touches and not _is_label(node, tree):
                kept.add(index)
                pending |= set(loads_in(node)) - reached
    tree.body = [node for index, node in enumerate(body) if index in kept or (isinstance(node, ast.ImportFrom) and node.names[0].name == "*")]


def _used_between(body: list[ast.stmt], first: int, last: int, name: str) -> bool:
    """Is the earlier definition used before the later one replaces it (wrapped, say)?"""
    return any(loads_in(node)[name] for node in body[first + 1 : last + 1] if not isinstance(node, FunctionNode | ast.ClassDef)) or any(
        loads_in(decorator)[name] for decorator in getattr(body[last], "decorator_list", [])
    )


def _is_label(node: ast.stmt, tree: ast.Module) -> bool:
    """`f.note = "..."`: an attribute that nothing reads."""
    match node:
        case ast.Assign(targets=[ast.Attribute(attr=attribute, value=ast.Name())], value=value) if is_pure_expression(value, set()):
            return not any(
                isinstance(child, ast.Attribute) and child.attr == attribute and isinstance(child.ctx, ast.Load) for child in ast.walk(tree)
            )
    return False
