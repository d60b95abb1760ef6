"""Larger calls from a problem's small ones, literal by literal. Pure text: nothing is run here."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable
from typing import Any

from rlaif.types import Problem

LENGTHS = (300, 3_000, 20_000)
TEXT_LENGTHS = (1_000, 10_000, 100_000)
"""Texts are cheaper to hand over than lists, and what is done per character is cheaper too: only long ones tell."""
INTEGERS = (23, 31, 1_009, 10_007, 100_003, 1_000_003, 9_999_991)
"""Primes: trial division, search and counting loops meet their worst case. 23 and 31 show exponential recursion before it hangs."""
_MAX_SHAPES = 4
_STEP = 7_919  # coprime to the modulus, so i * _STEP % _MODULUS does not repeat
_MODULUS = 100_003


def grown_calls(problem: Problem) -> list[list[str]]:
    """Shapes of growing calls, each a list from small to large: all collections grown (with elements that all differ, and with the given ones
    again and again), all integers grown, each integer alone."""
    calls = [parsed for test in problem.tests if test.form == "call" and (parsed := _arguments(test.input, problem.entry_point)) is not None]
    if not calls:
        return []
    call = max(calls, key=lambda arguments: len(repr(arguments)))
    alike = [other for other in calls if len(other) == len(call)]
    name = problem.entry_point or ""
    collections = [index for index, value in enumerate(call) if isinstance(value, list | tuple | str | dict | set) and len(value) > 1]
    integers = [index for index, value in enumerate(call) if isinstance(value, int) and not isinstance(value, bool)]
    in_order = {index for index in collections if all(_is_sorted(other[index]) for other in alike)}
    shapes: list[list[str]] = []

    def add(indices: list[int], sizes: tuple[int, ...], grow: Callable[[int, Any, int], Any]) -> None:
        if indices and len(shapes) < _MAX_SHAPES:
            shapes.append([_call(name, [grow(i, value, size) if i in indices else value for i, value in enumerate(call)]) for size in sizes])

    add(collections, LENGTHS, lambda index, value, size: grow_collection(value, size, in_order=index in in_order))
    if any(isinstance(call[index], list | tuple) and all(isinstance(item, str) for item in call[index]) for index in collections):
        add(collections, LENGTHS, lambda index, value, size: grow_collection(value, size, in_order=index in in_order, repeat=True))
    add(integers, INTEGERS, lambda _index, _value, size: size)
    if len(integers) > 1:
        for index in integers:
            add([index], INTEGERS, lambda _index, _value, size: size)
    return shapes


def _call(name: str, arguments: list[Any]) -> str:
    return f"{name}({', '.join(map(repr, arguments))})"


def _arguments(source: str, entry_point: str | None) -> list[Any] | None:
    """The literal arguments of `f(...)`, or None for any other expression."""
    try:
        match ast.parse(source.strip()).body:
            case [ast.Expr(value=ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]))] if name == entry_point:
                return [ast.literal_eval(argument) for argument in arguments]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    return None


def grow_collection(value: Any, size: int, *, in_order: bool, repeat: bool = False) -> Any:
    """A collection of `size` elements of the kind in `value`: distinct integers or words in mixed order (sorted if they always were),
    the given characters (more of them: see TEXT_LENGTHS), rows like the given rows. repeat: the given words again and again."""
    if isinstance(value, str):
        size = TEXT_LENGTHS[LENGTHS.index(size)] if size in LENGTHS else size
        return (value * (size // len(value) + 1))[:size]
    if repeat and not isinstance(value, dict):
        items = list(value)
        return type(value)(items[index % len(items)] for index in range(size))
    if isinstance(value, dict):
        keys, values = list(value), list(value.values())
        return dict(zip(_elements(keys, size, in_order=False), _elements(values, size, in_order=False), strict=True))
    grown = _elements(list(value), size, in_order=in_order)
    return grown if isinstance(value, list) else type(value)(grown)


def _elements(sample: list[Any], size: int, *, in_order: bool) -> list[Any]:
    numbers = [index * _STEP % _MODULUS for index in range(size)]
    if all(type(item) is int for item in sample):
        return sorted(numbers) if in_order else numbers
    if all(type(item) is float for item in sample):
        return [number / 8 for number in (sorted(numbers) if in_order else numbers)]
    if all(isinstance(item, str) for item in sample):
        # Single letters stand for anything: the same words in each collection, so that one can be looked up in another.
        stems = sample if all(len(item) > 1 for item in sample) else ["w"]
        words = [f"{stems[index % len(stems)]}{_letters(number)}" for index, number in enumerate(numbers)]
        return sorted(words) if in_order else words
    return [sample[index % len(sample)] for index in range(size)]


def _letters(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 26)
        text += chr(97 + digit)
    return text


def _is_sorted(value: Any) -> bool:
    try:
        return isinstance(value, list | tuple) and all(a <= b for a, b in itertools.pairwise(value))
    except TypeError:
        return False
