"""From a problem to the text a policy continues, and from what it wrote to code.

The policy's turn is opened for it: a code fence and, where the problem gives one, the signature. So every sampled token is code,
answers are short, and the name asked for is not left to chance. No tokenizer library is imported: any object with
`chat_template` and `apply_chat_template` will do.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from rlaif.problems import pysource
from rlaif.types import Problem

FENCE_START = "```python\n"
FENCE_END = "\n```"
_PYTHON = frozenset({"", "python", "python3", "py"})
SYSTEM = "You write correct, clear and efficient Python."


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` is everything before the policy's first token; `response_prefix` is the part of it that is already code."""

    text: str
    response_prefix: str
    stop_texts: tuple[str, ...]


def task_text(problem: Problem) -> str:
    """The task in words with its shown tests, whatever their form. Never a graded or held-out value.

    MBPP's first assert is its shown test: the words alone tell neither the order of the arguments nor what comes back. (Its paper shows
    all three, arXiv 2108.07732; with one, as EvalPlus does, the others can be trained on. Evaluation runs all of them.)
    """
    parts = [problem.prompt.strip()]
    examples = [f"{test.input} returns {test.expected}" for test in problem.tests_of("shown") if test.form == "call"]
    if examples:
        parts.append("For example:\n" + "\n".join(examples))
    for test in problem.tests_of("shown"):
        if test.form == "stdio":
            parts.append(f"Input:\n{test.input.rstrip()}\nOutput:\n{test.expected.rstrip()}")
        elif test.form == "code":
            parts.append(f"Your code must pass this test:\n{test.input.strip()}")
    return "\n\n".join(parts)


def opening_of(problem: Problem) -> str:
    """The code the answer starts with: what the prompt supplies and the signature.

    It ends without a newline: tokenizers merge a newline with the indentation after it, so a prompt that ends in one is a text the
    model has never seen continued (SmolLM2 then closes the fence at once).
    """
    return "\n".join(part.rstrip() for part in (problem.preamble, problem.signature) if part.strip())


def build_prompt(problem: Problem, tokenizer: Any) -> Prompt:
    """The prompt for a policy: a chat turn where the tokenizer has a chat template, otherwise comments above the code."""
    opening = opening_of(problem)
    if getattr(tokenizer, "chat_template", None):
        turn = apply_chat_template(tokenizer, chat_messages(problem))
        return Prompt(f"{turn}{FENCE_START}{opening}", opening, (FENCE_END,))
    comment = "\n".join(f"# {line}".rstrip() for line in task_text(problem).splitlines())
    # Base models go on to the next function or an example call: those are where the answer ends.
    return Prompt(f"{comment}\n{opening}", opening, (FENCE_END, "\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\n#"))


def chat_messages(problem: Problem) -> list[dict[str, str]]:
    """What a chat model is asked, as messages; the answer starts with `FENCE_START` and the opening."""
    kind = "a Python program" if problem.entry_point is None else f"the Python {_noun(problem)} `{problem.entry_point}`"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Write {kind}. {task_text(problem)}"}]


def apply_chat_template(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The messages as the model reads them, its own turn opened; in one user turn where the template refuses a system turn."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates are programs of third parties: some refuse a system turn, each with its own exception
        merged = [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]
        return tokenizer.apply_chat_template(merged, tokenize=False, add_generation_prompt=True)


def _noun(problem: Problem) -> str:
    return "class" if problem.signature.lstrip().startswith("class ") else "function"


def extract_code(problem: Problem, prompt: Prompt, text: str) -> str:
    """The program in a completion: the opened code up to where the answer ends.

    A model that ignores the opening and starts over (its own fence with the whole function in it) is taken at its word if its own
    block defines the entry point and the opened one does not parse. For an imported set only what the entry point needs is kept, as in
    its published scores; for our own, code after the answer is part of the answer, and a policy learns to stop.
    """
    code = _opened_or_own(problem, prompt, text)
    return pysource.needed_for(code, problem.entry_point) if problem.imported and problem.entry_point is not None else code


def _opened_or_own(problem: Problem, prompt: Prompt, text: str) -> str:
    ends = [end for end in (text.find(stop) for stop in prompt.stop_texts) if end >= 0]
    code = prompt.response_prefix + cut_at_fence(text[: min(ends)] if ends else text)
    if _parses(code):
        return code
    own = last_code_block(text)
    if own is not None and (problem.entry_point is None or _defines(own, problem.entry_point)):
        return own
    return code


def encode_prompt(prompt: Prompt, tokenizer: Any) -> list[int]:
    """Token ids of a prompt. A chat template writes its own special tokens; without one the tokenizer's are used, less a closing end-of-text."""
    if getattr(tokenizer, "chat_template", None):
        return tokenizer(prompt.text, add_special_tokens=False).input_ids
    ids = tokenizer(prompt.text).input_ids
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def cut_at_fence(text: str) -> str:
    """Everything before the first line that starts a fence."""
    return re.split(r"(?m)^\s*```", text, maxsplit=1)[0].rstrip() + "\n"


def last_code_block(text: str) -> str | None:
    """The last complete fenced block of Python in a reply, or None. For replies that were not opened by `build_prompt`."""
    return python_blocks(text)[0]


def python_blocks(text: str) -> tuple[str | None, str | None]:
    """(the last complete fenced block of Python, what follows a Python fence that was never closed); None for what there is not.

    A fence without a language counts as Python. Takes time linear in the text, whatever the text is.
    """
    complete: str | None = None
    language: str | None = None
    inside: list[str] = []
    for line in text.splitlines(keepends=True):
        mark = line.lstrip(" \t")
        if not mark.startswith("```"):
            inside.append(line)
        elif language is None:
            language, inside = mark[3:].strip().lower(), []
        else:
            complete = "".join(inside) if language in _PYTHON else complete
            language, inside = None, []
    return complete, "".join(inside) if language in _PYTHON else None


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _defines(code: str, name: str) -> bool:
    return re.search(rf"(?m)^(?:async\s+)?(?:def|class)\s+{re.escape(name)}\b", code) is not None
