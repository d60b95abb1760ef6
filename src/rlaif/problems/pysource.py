"""Small questions about Python source that loaders, prompts and checks all ask: which function does this call, is this a literal?"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Container, Iterator

_BUILTINS = frozenset(dir(builtins))


def parses(source: str) -> bool:
    """True if `source` is a Python module. A NUL byte or absurd nesting is a plain no, not an exception."""
    return parse_or_none(source) is not None


def parse_or_none(source: str) -> ast.Module | None:
    """The module's tree, or None for anything Python will not parse."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def literal_error(text: str) -> str | None:
    """None if `text` is a Python literal, else why it is not, in words."""
    try:
        ast.literal_eval(text.strip())
    except SyntaxError as error:
        return error.msg
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        return str(error).split(":")[0] or type(error).__name__
    return None


def called_names(source: str, known: Container[str] = ()) -> list[str]:
    """Names that `source` calls and does not itself define, outermost first, builtins left out unless `known` has them.

    `sorted(unique([1]))` gives ['unique']; `s = Stack(); s.push(1)` gives ['Stack']; `Solution().f(1)` gives ['Solution'].
    """
    tree = parse_or_none(source)
    if tree is None:
        return []
    bound = set(bound_names(tree))
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if (name not in _BUILTINS or name in known) and name not in bound and name not in names:
                names.append(name)
    return names


def free_names(source: str) -> list[str]:
    """Names that `source` reads and neither defines nor finds in builtins: called ones first, then those merely handed on (`map(f, xs)`)."""
    tree = parse_or_none(source)
    if tree is None:
        return []
    bound = set(bound_names(tree))
    read = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return list(dict.fromkeys([*called_names(source), *(name for name in read if name not in _BUILTINS and name not in bound)]))


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that the tree binds: assignments, definitions, imports, arguments, loop and exception variables."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.split(".")[0]
            case ast.arg(arg=name):
                yield name
            case ast.ExceptHandler(name=str(name)):
                yield name


def imported_modules(source: str) -> set[str]:
    """The packages that `source` imports anywhere in it (`os.path` counts as os); none if it does not parse."""
    tree = parse_or_none(source)
    found: set[str] = set()
    for node in ast.walk(tree) if tree else ():
        match node:
            case ast.Import(names=names):
                found |= {name.name.split(".")[0] for name in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.split(".")[0])
    return found


def top_level_names(source: str) -> list[str]:
    """Functions, classes and assigned names at the top level of `source`, in order; [] if it does not parse."""
    tree = parse_or_none(source)
    names: list[str] = []
    for node in tree.body if tree else []:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=targets):
                names.extend(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return names


def defines(source: str, name: str) -> bool:
    """True if `source` parses and binds `name` at its top level."""
    return name in top_level_names(source)


def definition(source: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None:
    """The last top-level `def` or `class` of that name: the one that is in force after the module ran."""
    tree = parse_or_none(source)
    found = None
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            found = node
    return found


def signature_of(source: str, name: str) -> str:
    """The header line(s) of `name` as written, up to and including the colon; "" if it is not defined there."""
    node = definition(source, name)
    if node is None or not node.body:
        return ""
    lines = source.splitlines()
    first = node.body[0]
    start = min([first.lineno, *(item.lineno for item in getattr(first, "decorator_list", []))])
    header = lines[node.lineno - 1 : start - 1]
    if not header:  # a body on the header's own line
        return lines[node.lineno - 1].encode()[: first.col_offset].decode().rstrip()
    return "\n".join(header).rstrip()


def arity_of(source: str, name: str) -> int | None:
    """How many positional parameters the function takes; None if unknown or variable."""
    node = definition(source, name)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.args.vararg:
        return None
    return len(node.args.posonlyargs) + len(node.args.args)


def needed_for(source: str, name: str) -> str:
    """Of a program, what the definition of `name` needs: imports, and the definitions and assignments that it uses, directly or not.

    Models end an answer with tests and prints of their own, often wrong, and often cut off at the token limit; published scores leave
    both out (EvalPlus's sanitiser does as here). If the end does not parse, the longest beginning that does is taken. A program that
    defines no `name` comes back as it is.
    """
    tree, lines = _longest_that_parses(source)
    if tree is None or not defines("\n".join(lines), name):
        return source
    bound = {id(node): set(_binds(node)) for node in tree.body}
    wanted, grew = {name}, True
    while grew:
        before = len(wanted)
        for node in tree.body:
            if bound[id(node)] & wanted:
                wanted |= {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
        grew = len(wanted) > before
    kept = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.Try) or bound[id(node)] & wanted]
    numbers = sorted({number for node in kept for number in range(_first_line(node), (node.end_lineno or node.lineno) + 1)})
    return "\n".join(lines[number - 1] for number in numbers) + "\n"


def _longest_that_parses(source: str) -> tuple[ast.Module | None, list[str]]:
    lines = re.split("\r\n|\r|\n", source)  # as Python counts them: str.splitlines knows more kinds of line end
    for end in range(len(lines), max(0, len(lines) - 200), -1):
        if end < len(lines) and lines[end][:1] in (" ", "\t"):
            continue  # a program can only end where the next line begins a new statement
        tree = parse_or_none("\n".join(lines[:end]))
        if tree is not None:
            return tree, lines[:end]
    return None, lines


def _binds(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        yield from (item.id for item in ast.walk(node) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store))


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
