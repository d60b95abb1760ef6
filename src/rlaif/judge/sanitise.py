"""What stands between the policy's text and the judge: refuse what hides, then show the program and none of its author's words.

A judge is fooled by comments that claim correctness, by names and strings that praise, by decoy functions, by chat tokens and by sheer
length (arXiv 2505.16222, 2507.08794). A list of bad words never ends, so the code is not filtered but rebuilt: it is parsed, what cannot
affect the result is dropped, names are replaced by position, and words in strings survive only if the problem itself uses them.
Two programs that compute alike and differ in decoration give the same text, and so the same score.

No torch here, and nothing is executed.
"""

from __future__ import annotations

import ast
import unicodedata
import warnings
from dataclasses import dataclass
from typing import NamedTuple

from rlaif.judge.canonical import canonical_source
from rlaif.judge.vocabulary import Vocabulary, praise_in
from rlaif.types import Problem

MAX_RAW_CHARS = 40_000
MAX_SHOWN_CHARS = 8_000

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters that show nothing and are not in the Unicode format category."""


class Refusal(NamedTuple):
    """Why no judge is asked. kind: `syntax_error`, `missing_entry_point`, `trivial`, `characters`, `overlong`."""

    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Sanitised:
    """The program a judge may see. `notes` say what in the original addressed a reader instead of the task."""

    code: str
    notes: tuple[str, ...] = ()


def sanitise(problem: Problem, code: str, max_chars: int = MAX_SHOWN_CHARS) -> Sanitised | Refusal:
    """The canonical program, or the reason for not asking a judge. Never raises on any text."""
    tree = _checked_tree(problem, code)
    if isinstance(tree, Refusal):
        return tree
    try:
        shown = canonical_source(tree, problem.entry_point, Vocabulary.of(problem), _signature_names(problem))
    except (RecursionError, ValueError) as error:
        return Refusal("overlong", f"too large or too deeply nested to be read ({error})")
    if len(shown) > max_chars:
        return Refusal("overlong", f"{len(shown)} characters of code; a judge reads at most {max_chars}")
    if not shown.strip():
        return Refusal("trivial", "nothing in it has an effect")
    return Sanitised(shown, _notes(code))


def precheck(problem: Problem, code: str) -> Refusal | None:
    """None if the code parses, defines the entry point with a body that does something, and hides no characters."""
    tree = _checked_tree(problem, code)
    return tree if isinstance(tree, Refusal) else None


def escape_special(text: str, special_tokens: tuple[str, ...] = ()) -> str:
    """Break every chat-template marker in `text`, so that no tokenizer reads one: those given, and the families in use.

    A space after the first character is enough: special tokens are matched as whole strings before anything else.
    """
    for token in sorted({*special_tokens, *_FAMILIES}, key=len, reverse=True):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


_FAMILIES = (
    "<|",
    "|>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<think>",
    "</think>",
)


def _checked_tree(problem: Problem, code: str) -> ast.Module | Refusal:
    if len(code) > MAX_RAW_CHARS:
        return Refusal("overlong", f"{len(code)} characters; at most {MAX_RAW_CHARS} are read")
    hidden = next((character for character in code if _is_hidden(character)), None)
    if hidden is not None:
        return Refusal("characters", f"character U+{ord(hidden):04X} ({unicodedata.name(hidden, 'unnamed')}) hides or reorders text")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in the policy's string is not our warning
            tree = ast.parse(code)
    except SyntaxError as error:
        return Refusal("syntax_error", f"line {error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Refusal("syntax_error", f"cannot be parsed: {type(error).__name__}")
    if problem.entry_point is None:
        return tree if any(_does_something(node) for node in tree.body) else Refusal("trivial", "the program does nothing")
    definition = _definition(tree, problem.entry_point.split(".")[0])
    if definition is None:
        return Refusal("missing_entry_point", f"it does not define `{problem.entry_point}`")
    return Refusal("trivial", f"the body of `{problem.entry_point}` does nothing") if _is_trivial(definition, problem) else tree


def _is_hidden(character: str) -> bool:
    if character in "\n\r\t" or " " <= character <= "~":
        return False
    if character in _INVISIBLE or "\ufe00" <= character <= "\ufe0f" or "\U000e0000" <= character <= "\U000e0fff":
        return True
    return unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}


def _definition(tree: ast.Module, name: str) -> ast.stmt | None:
    """The last statement outside any function that binds `name`, wherever it stands (under `if` and `try` too)."""
    found: ast.stmt | None = None
    pending: list[ast.stmt] = list(reversed(tree.body))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found = node if node.name == name else found
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) and node.value else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            found = node
        if isinstance(node, ast.Import | ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            found = node
        nested = [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            pending.extend(child for child in reversed(nested) if not _inside_function(node, child))
    return found


def _inside_function(root: ast.AST, wanted: ast.AST) -> bool:
    for node in ast.walk(root):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
            and node is not wanted
            and any(child is wanted for child in ast.walk(node))
        ):
            return True
    return False


def _is_trivial(definition: ast.stmt, problem: Problem) -> bool:
    """No effect at all, or a constant in place of an answer where the reference does more than that."""
    if isinstance(definition, ast.ClassDef):
        return not any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_does_something, node.body)) for node in definition.body
        ) and not any(isinstance(node, ast.Assign | ast.AnnAssign) for node in definition.body)
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return isinstance(definition, ast.Assign | ast.AnnAssign) and isinstance(definition.value, ast.Constant)
    if not any(map(_does_something, definition.body)):
        return True
    return _answers_with_a_constant(definition) and not _reference_is_constant(problem)


def _does_something(node: ast.stmt) -> bool:
    if isinstance(node, ast.Pass | ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal | ast.Raise):
        return False
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant | ast.Name)
    if isinstance(node, ast.Return):
        return node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value in (None, ...))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return any(map(_does_something, node.body))
    return True


def _answers_with_a_constant(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A function with parameters that reads none of them, has no loop and no branch, and returns literals."""
    arguments = definition.args
    parameters = {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    if not parameters:
        return False
    body = [node for statement in definition.body for node in ast.walk(statement)]
    reads = any(isinstance(node, ast.Name) and node.id in parameters for node in body)
    works = any(
        isinstance(node, ast.Call | ast.For | ast.While | ast.If | ast.comprehension | ast.Yield | ast.YieldFrom | ast.Lambda) for node in body
    )
    return not reads and not works


def _reference_is_constant(problem: Problem) -> bool:
    if problem.reference is None:
        return False
    try:
        definition = _definition(ast.parse(problem.reference), (problem.entry_point or "").split(".")[0])
    except (SyntaxError, ValueError):
        return False
    return isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef) and _answers_with_a_constant(definition)


def _signature_names(problem: Problem) -> tuple[str, ...]:
    """The parameter names the problem gives to its entry point, in order; empty if it gives none."""
    for source in (f"{problem.signature.rstrip()} pass" if problem.signature.rstrip().endswith(":") else problem.signature, problem.reference or ""):
        try:
            definition = _definition(ast.parse(source), (problem.entry_point or "").split(".")[0])
        except (SyntaxError, ValueError):
            continue
        if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
            return tuple(argument.arg for argument in (*definition.args.posonlyargs, *definition.args.args))
    return ()


def _notes(code: str) -> tuple[str, ...]:
    praise = praise_in(code)
    return (f"words for a grader in comments, names or strings: {', '.join(praise)}",) if praise else ()
