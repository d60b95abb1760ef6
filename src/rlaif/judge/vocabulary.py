"""Which words of a program a judge may read: those of the problem, and never those that speak to a grader."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache

from rlaif.types import Problem

_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")

_LOADED_TEXT = """
    accept accepted accurate approve approved assistant best bug bugfree bugs certified confirmed correct correctly correctness
    excellent expert evaluator evaluation flawless genuine golden good grade graded grader guaranteed ignore ignored instruction
    instructions judge judged judgement judgment marks ok okay optimal pass passed passes passing perfect perfectly points praise
    proven quality rate rated rating reasoning review reviewed reviewer reward score scored scores solution sound system tested
    thought trusted trust user verdict verified verify yes great nice fine robust efficient clean honest disregard previous approve
    rubric criteria criterion prompt override admin
"""
LOADED = frozenset(_LOADED_TEXT.split())
"""Words that address a reader instead of the task. Never shown in a string unless the problem's tests use that very string."""

_PHRASES = re.compile(
    r"(?i)\b(correct(ly|ness)?|perfect(ly)?|flawless(ly)?|verified|approved|excellent|guaranteed|bug[- _]?free|grader?|judge|reviewer|verdict|rubric|"
    r"score|10/10|100/100|5/5|full marks|all tests pass(ed)?|ignore (all |any )?(the )?previous|thought process|im_start|im_end|endoftext)(?![a-z])"
)


def praise_in(code: str) -> tuple[str, ...]:
    """Words in the raw text that look meant for a grader, at most five, in order of appearance; for reasons and the honesty principle."""
    seen = dict.fromkeys(match.group(0).lower() for match in _PHRASES.finditer(code.replace("_", " ")))
    return tuple(seen)[:5]


def words_of(text: str) -> list[str]:
    """Lower-case words of a text or identifier: `maxValue_of2` gives max, value, of."""
    return [word.lower() for part in _WORD.findall(text.replace("_", " ")) for word in _CAMEL.split(part)]


@dataclass(frozen=True)
class Vocabulary:
    """What the problem itself says: its words, the strings that its tests, prompt and reference use literally (`literals`), and the names of
    attributes, methods and parameters that its tests and signature use (`interface`)."""

    words: frozenset[str]
    literals: frozenset[str]
    interface: frozenset[str]

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(problem: Problem) -> Vocabulary:
        texts = [problem.prompt, problem.signature, problem.entry_point or ""]
        literals = {
            quoted for pair in re.findall(r"'([^'\n]{1,60})'|\"([^\"\n]{1,60})\"|`([^`\n]{1,60})`", problem.prompt) for quoted in pair if quoted
        }
        sources = [problem.reference or "", problem.preamble]
        for test in problem.tests:
            sources += [test.input, test.expected] if test.form == "call" else []
            literals.update(test.expected.split() if test.form == "stdio" else ())
        for source in sources:
            literals.update(_strings_in(source))
        interface = {
            name for source in (*(test.input for test in problem.tests if test.form != "stdio"), problem.signature) for name in _names_in(source)
        }
        interface.update(re.findall(r"`\.?([A-Za-z_]\w*)", problem.prompt))
        return Vocabulary(frozenset(word for text in texts for word in words_of(text)) - LOADED, frozenset(literals), frozenset(interface))

    def shows(self, string: str) -> bool:
        """May this string constant be shown? Symbols and the problem's own words may; prose of the author's may not."""
        if string in self.literals:
            return len(string) <= 200
        if len(string) > 64 or not string.isascii():
            return False
        if is_charset(string):
            return True
        words = words_of(string)
        return len(words) <= 6 and all((word in self.words or len(word) <= 2) and word not in LOADED for word in words)


def is_charset(string: str) -> bool:
    """Digits, symbols, `aeiou`, or slices of the alphabet: data that code looks characters up in."""
    if re.search(r"\d\s*(/|out of|%)", string):
        return False  # 10/10 is a mark, not data
    letters = [part.lower() for part in _WORD.findall(string)]
    return all(
        part in "abcdefghijklmnopqrstuvwxyz" or part in "zyxwvutsrqponmlkjihgfedcba" or part in {"aeiou", "aeiouy", "aeiouaeiou"} for part in letters
    )


def _strings_in(source: str) -> set[str]:
    try:
        tree = ast.parse(source.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _names_in(source: str) -> set[str]:
    """Attributes and keywords that a test uses, methods and parameters that a signature declares."""
    source = source.strip()
    for attempt in (source, f"{source} pass"):
        try:
            tree = ast.parse(attempt)
            break
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    else:
        return set()
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword | ast.arg) and node.arg}
    return names | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
