"""One text for all programs that differ only in their author's words.

Parameters get the problem's names, every other name of the author's is replaced by its position (f1, C1, v1), annotations and messages go,
and strings that are prose become `'...'`. What a library or the problem named keeps its name, for it says what the code does.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import keyword
import sys
import unicodedata
from functools import cache

from rlaif.judge.deadcode import drop_dead_code
from rlaif.judge.vocabulary import Vocabulary

_LONGEST_LITERAL = 12
"""Elements of a list, set, dict or tuple of constants that are shown; the rest is `...`."""

_KEPT_NAMES = frozenset({*dir(builtins), "self", "cls", "__name__"})
_MODULES_TEXT = """
    collections functools itertools math cmath re string heapq bisect operator random datetime decimal fractions statistics sys os
    json copy enum typing abc contextlib dataclasses io time textwrap calendar array queue threading
"""
_MODULES = _MODULES_TEXT.split()


def canonical_source(tree: ast.Module, entry_point: str | None, vocabulary: Vocabulary, parameters: tuple[str, ...]) -> str:
    """Rewrite `tree` and return its source: ASCII, without comments, names or prose of the author's."""
    _drop_words(tree)
    drop_dead_code(tree, entry_point)
    _Strings(vocabulary).visit(tree)
    _rename(tree, entry_point, parameters, vocabulary.interface)
    source = ast.unparse(ast.fix_missing_locations(tree))
    # Only string constants can hold other characters now, and there the escape is the same string.
    return source.encode("ascii", "backslashreplace").decode("ascii") + "\n"


# Words that no program needs -------------------------------------------------------------------------------------------------------------


def _drop_words(tree: ast.Module) -> None:
    """Annotations, assert messages, exception texts, `as` names of imports, type comments."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.arg():
                node.annotation = None
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                node.returns = None
            case ast.Assert():
                node.msg = None
            case ast.Raise(exc=ast.Call(func=function)):
                node.exc, node.cause = function, None
            case ast.Import():
                for alias in node.names:
                    if alias.asname and "." not in alias.name:
                        aliases[alias.asname], alias.asname = alias.name, None
            case ast.ImportFrom():
                for alias in node.names:
                    if alias.asname:
                        aliases[alias.asname], alias.asname = alias.name, None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in aliases:
            node.id = aliases[node.id]
    _PlainAssignments().visit(tree)


class _PlainAssignments(ast.NodeTransformer):
    """`x: "a claim" = 1` becomes `x = 1`; in a class an annotation can be a field, so there a plain one stays."""

    def __init__(self) -> None:
        self.in_class = False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outer, self.in_class = self.in_class, True
        self.generic_visit(node)
        self.in_class = outer
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self.in_class = self.in_class, False
        self.generic_visit(node)
        self.in_class = outer
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self.in_class:
            node.annotation = ast.Name("object", ast.Load())
            return node
        return None if node.value is None else ast.copy_location(ast.Assign([node.target], node.value), node)


# Strings and long literals ---------------------------------------------------------------------------------------------------------------


class _Strings(ast.NodeTransformer):
    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, str):
            value = unicodedata.normalize("NFKC", value)
            node.value = value if self.vocabulary.shows(value) else "..."
        elif isinstance(value, bytes):
            node.value = value if self.vocabulary.shows(value.decode("latin-1")) else b"..."
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**70:
            return ast.copy_location(ast.Name("BIG_NUMBER", ast.Load()), node)
        node.kind = None
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        node.value = self.visit(node.value)
        return node  # the format specification is grammar, not prose; ast.unparse needs it as it stands

    def _shorten(self, node: ast.List | ast.Tuple | ast.Set) -> ast.AST:
        self.generic_visit(node)
        if len(node.elts) > _LONGEST_LITERAL and all(isinstance(element, ast.Constant) for element in node.elts):
            node.elts = [*node.elts[:_LONGEST_LITERAL], ast.Constant(...)]
        return node

    visit_List = visit_Tuple = visit_Set = _shorten

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        self.generic_visit(node)
        if len(node.keys) > _LONGEST_LITERAL and all(isinstance(part, ast.Constant) for part in (*node.keys, *node.values)):
            node.keys = [*node.keys[:_LONGEST_LITERAL], ast.Constant(...)]
            node.values = [*node.values[:_LONGEST_LITERAL], ast.Constant(...)]
        return node


# Names -----------------------------------------------------------------------------------------------------------------------------------


@cache
def library_names() -> frozenset[str]:
    """Attributes of the built-in types and of common standard modules: names that the author did not choose."""
    owners: list[object] = [str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, object, range, type, BaseException]
    for module in map(importlib.import_module, _MODULES):
        owners += [module, *(value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__)]
    return frozenset(name for owner in owners for name in dir(owner)) | {
        "cache_clear",
        "cache_info",
        "key",
        "reverse",
        "default",
        "start",
        "end",
        "sep",
    }


def _targets(node: ast.stmt) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []


class _Renamer(ast.NodeTransformer):
    """Names in order of appearance. Not aware of scopes: one name has one replacement in the whole program, which keeps it correct."""

    def __init__(self, mapping: dict[str, str], bound: dict[str, str], interface: frozenset[str], known_keywords: frozenset[str]) -> None:
        self.mapping, self.bound, self.interface, self.known_keywords = mapping, bound, interface, known_keywords
        self.taken = set(mapping.values()) | _KEPT_NAMES | interface
        self.counts = {"f": 0, "C": 0, "v": 0, "m": 0}

    def new(self, name: str, kind: str | None = None) -> str:
        if name not in self.mapping:
            kind = kind or self.bound.get(name, "v")
            while True:
                self.counts[kind] += 1
                candidate = f"{kind}{self.counts[kind]}"
                if candidate not in self.taken:
                    break
            self.taken.add(candidate)
            self.mapping[name] = candidate
        return self.mapping[name]

    def name(self, name: str) -> str:
        if name in self.bound or name in self.mapping:
            return self.new(name)
        return name if name in _KEPT_NAMES or name in library_names() or name == "BIG_NUMBER" else self.new(name)

    def attribute(self, name: str) -> str:
        return (
            name
            if name in library_names() or name in self.interface or (name.startswith("__") and name.endswith("__") and name.isascii())
            else self.new(f".{name}", "m")
        )

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self.name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self.name(node.arg)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # A keyword is a parameter's name if the author wrote the callee, and the library's own otherwise.
        match node.func:
            case ast.Name(id=name):
                theirs = name in self.bound
            case ast.Attribute(attr=name):
                theirs = name not in library_names()
            case _:
                theirs = True
        node.func = self.visit(node.func)
        node.args = [self.visit(argument) for argument in node.args]
        for argument in node.keywords:
            if argument.arg is not None:
                renamed = theirs and (argument.arg in self.bound or argument.arg in self.mapping)
                argument.arg = self.name(argument.arg) if renamed else argument.arg if argument.arg in self.known_keywords else "option"
            argument.value = self.visit(argument.value)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.value = self.visit(node.value)
        node.attr = self.attribute(node.attr)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self.name(node.name)
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self.name(node.name)
        # A method or a field is an attribute: `.area` and `def area` must stay the same name.
        names = [child.name for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
        names += [t.id for child in node.body for t in _targets(child) if isinstance(t, ast.Name)]
        for name in names:
            self.mapping[name] = self.mapping.get(name) or self.attribute(name)
            self.mapping.setdefault(f".{name}", self.mapping[name])
        return self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = self.name(node.name) if node.name else None
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self.name(name) for name in node.names]
        return node

    visit_Nonlocal = visit_Global  # type: ignore[assignment]

    def visit_alias(self, node: ast.alias) -> ast.AST:
        root = node.name.split(".")[0]
        known = node.name == "*" or root in sys.stdlib_module_names or root in library_names() or root in {"numpy", "pandas"}
        node.name = node.name if known else "unknown"
        node.asname = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module and node.module.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "pandas"}:
            node.module = "unknown"
        return self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        node.name = self.name(node.name) if node.name else None
        return self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        node.name = self.name(node.name) if node.name else None
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        node.rest = self.name(node.rest) if node.rest else None
        return self.generic_visit(node)


def _rename(tree: ast.Module, entry_point: str | None, parameters: tuple[str, ...], interface: frozenset[str]) -> None:
    bound: dict[str, str] = {}
    imported: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound[name] = "f"
            case ast.ClassDef(name=name):
                bound[name] = "C"
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                bound.setdefault(name, "v")
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                bound.setdefault(name, "v")
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                imported |= {alias.name.split(".")[0] for alias in names}
    mapping = {name: name for name in ("self", "cls") if name in bound} | {
        name: name for name in imported if name in library_names() or name in sys.stdlib_module_names
    }
    for name in bound:
        if name.startswith("__") and name.endswith("__") and name.isascii():
            mapping[name] = name
    if entry_point is not None:
        root = entry_point.split(".")[0]
        mapping[root] = root
        definition = next((node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == root), None)
        if definition is not None:
            _drop_unread_extras(definition, len(parameters))
            theirs = [argument.arg for argument in (*definition.args.posonlyargs, *definition.args.args)]
            for old, new in zip(theirs, parameters, strict=False):
                if old not in mapping and new.isascii() and not keyword.iskeyword(new):
                    mapping[old] = new
    used_keywords = (
        library_names() | set(parameters) | {"maxsplit", "file", "flush", "strict", "repeat", "initial", "maxsize", "key", "reverse", "default"}
    )
    _Renamer(mapping, bound, interface, used_keywords).visit(tree)


def _drop_unread_extras(definition: ast.FunctionDef | ast.AsyncFunctionDef, expected: int) -> None:
    """Parameters with defaults beyond the problem's own that the body never reads carry nothing but their names."""
    if not expected:
        return
    reads = {node.id for statement in definition.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    arguments = definition.args
    while (
        len(arguments.args) + len(arguments.posonlyargs) > expected and arguments.args and arguments.defaults and arguments.args[-1].arg not in reads
    ):
        arguments.args.pop()
        arguments.defaults.pop()
    kept = [
        (argument, default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if argument.arg in reads or default is None
    ]
    arguments.kwonlyargs = [argument for argument, _ in kept]
    arguments.kw_defaults = [default for _, default in kept]
    if arguments.vararg and arguments.vararg.arg not in reads:
        arguments.vararg = None
    if arguments.kwarg and arguments.kwarg.arg not in reads:
        arguments.kwarg = None
