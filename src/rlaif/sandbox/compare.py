"""Does an answer equal what was expected? Compares the solution's tree with a trusted value and builds nothing from it.

No set or dict is ever made from the solution's keys (they may be chosen to collide); look-ups go into tables made from the
trusted side. `exact` is Python's own `==`, for imported tests. Otherwise ints, bools and strings must agree in type too, and
where the expected leaf is a float a relative difference of 1e-6 is allowed. NaN equals nothing.
"""

from __future__ import annotations

import collections
import contextlib
import decimal
import fractions
import math
from typing import Any

from rlaif.sandbox.inside import codec

REL_TOL = 1e-6
MAX_PAIRINGS = 4_000_000
_SEQUENCES = {list: "", tuple: "t", collections.deque: "q"}
_BODIES = {"t": list, "s": list, "f": list, "q": list, "d": list, "i": str, "F": str, "c": list, "r": list, "b": str, "B": str, "D": str, "Q": list}


class _Budget:
    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_PAIRINGS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OverflowError("too much to compare")


def equal(tree: Any, expected: Any, exact: bool) -> bool:
    """True if the tree stands for a value equal to `expected`. Never raises for a hostile tree."""
    try:
        return _equal(tree, expected, exact, _Budget())
    except (ArithmeticError, RecursionError, ValueError, TypeError, KeyError):  # a signalling NaN raises even at ==
        return False


def is_foreign(tree: Any, depth: int = 0) -> bool:
    """True if the tree holds a handle to the solution's own object anywhere near the top."""
    if type(tree) is dict:
        return "o" in tree or any(is_foreign(body, depth + 1) for body in tree.values() if depth < 8)
    return type(tree) is list and depth < 8 and any(is_foreign(item, depth + 1) for item in tree[:1000])


def _tag(tree: Any) -> tuple[str, Any]:
    """("", plain value or list) or (tag, body of the type that belongs to it). Raises ValueError."""
    if type(tree) is not dict:
        return "", tree
    if len(tree) != 1:
        raise ValueError("malformed")
    ((tag, body),) = tree.items()
    if type(body) is not _BODIES.get(tag):
        raise ValueError("malformed")
    return tag, body


def _equal(tree: Any, expected: Any, exact: bool, budget: _Budget) -> bool:
    budget.spend()
    tag, body = _tag(tree)
    kind = type(expected)
    if kind in _SEQUENCES:
        if tag != _SEQUENCES[kind] or type(body) is not list or len(body) != len(expected):
            return False
        return all(_equal(item, want, exact, budget) for item, want in zip(body, expected, strict=True))
    if kind is dict:
        return tag == "d" and _equal_dict(body, expected, exact, budget)
    if kind in (set, frozenset):
        if exact:
            return tag in ("s", "f") and _equal_set(body, expected, exact, budget)
        return tag == ("s" if kind is set else "f") and _equal_set(body, expected, exact, budget)
    if tag in ("t", "q", "s", "f", "d") or (type(body) is list and tag == ""):
        return False
    return _equal_leaf(codec.decode(tree), expected, exact)


def _equal_leaf(value: Any, expected: Any, exact: bool) -> bool:
    if type(value) is float and value != value:
        return False
    same = value == expected
    if exact:
        return same is True
    kind = type(expected)
    if kind is float:
        if type(value) not in (float, int):
            return False
        return same is True or (math.isfinite(expected) and math.isclose(value, expected, rel_tol=REL_TOL))
    if kind is complex:
        return type(value) in (complex, float, int) and (same is True or abs(value - expected) <= REL_TOL * abs(expected))
    return type(value) is kind and same is True


def _key(tree: Any) -> Any:
    """A hashable stand-in for a leaf or a tuple of leaves, equal and hashing as the value would. Raises ValueError for the rest."""
    tag, body = _tag(tree)
    if tag == "t":
        return tuple(_key(item) for item in body)
    if (tag in ("", "i", "F", "b", "c", "D", "Q") and type(body) is not list) or tag in ("c", "Q"):
        return codec.decode(tree)
    raise ValueError("not a plain key")


def _simple(value: Any) -> bool:
    kind = type(value)
    if kind is tuple:
        return all(_simple(item) for item in value)
    return kind in (int, str, bool, float, bytes, complex, decimal.Decimal, fractions.Fraction) or value is None


def _match(items: list[Any], expected: list[Any], exact: bool, budget: _Budget) -> list[int] | None:
    """For each item the index of the one expected element equal to it; None unless it is one to one."""
    if len(items) != len(expected):
        return None
    table = {value: index for index, value in enumerate(expected) if _simple(value)}
    free = dict.fromkeys(range(len(expected)))
    found: list[int] = []
    late: list[int] = []
    for position, item in enumerate(items):
        index: int | None = None
        with contextlib.suppress(ValueError, TypeError):
            index = table.get(_key(item))
        if index is not None and index in free and _equal(item, expected[index], exact, budget):
            del free[index]
            found.append(index)
        else:
            found.append(-1)
            late.append(position)
    for position in late:  # frozensets, and floats within the tolerance
        for index in free:
            if _equal(items[position], expected[index], exact, budget):
                del free[index]
                found[position] = index
                break
        else:
            return None
    return found


def _equal_set(body: list[Any], expected: Any, exact: bool, budget: _Budget) -> bool:
    return _match(body, list(expected), exact, budget) is not None


def _equal_dict(body: list[Any], expected: dict[Any, Any], exact: bool, budget: _Budget) -> bool:
    if any(type(pair) is not list or len(pair) != 2 for pair in body):
        return False
    values = list(expected.values())
    found = _match([pair[0] for pair in body], list(expected), exact, budget)
    return found is not None and all(_equal(pair[1], values[index], exact, budget) for pair, index in zip(body, found, strict=True))


def truth(tree: Any) -> bool:
    """bool() of the value a tree stands for. Raises ValueError for foreign objects."""
    tag, body = _tag(tree)
    if tag in ("", "t", "q", "s", "f", "d", "b", "B") and type(body) in (list, str):
        return bool(body)
    return bool(codec.decode(tree))


def show(tree: Any, limit: int = 300) -> str:
    """Something like repr() of the value, for people, at most `limit` characters."""
    parts: list[str] = []
    _show(tree, parts, [limit], 0)
    text = "".join(parts)
    return text if len(text) <= limit else text[: limit - 1] + "…"


_BRACKETS = {"": ("[", "]"), "t": ("(", ")"), "s": ("{", "}"), "f": ("frozenset({", "})"), "q": ("deque([", "])")}


def _show(tree: Any, parts: list[str], left: list[int], depth: int) -> None:
    def put(text: str) -> None:
        parts.append(text)
        left[0] -= len(text)

    if left[0] <= 0 or depth > 50:
        return put("…")
    try:
        tag, body = _tag(tree)
        if tag in _BRACKETS and type(body) is list:
            opening, closing = _BRACKETS[tag]
            put(opening if body or tag not in ("s",) else "set(")
            for index, item in enumerate(body):
                if left[0] <= 0:
                    break
                put(", " if index else "")
                _show(item, parts, left, depth + 1)
            put((",)" if tag == "t" and len(body) == 1 else closing) if body or tag != "s" else ")")
        elif tag == "d":
            put("{")
            for index, (key, item) in enumerate(body):
                if left[0] <= 0:
                    break
                put(", " if index else "")
                _show(key, parts, left, depth + 1)
                put(": ")
                _show(item, parts, left, depth + 1)
            put("}")
        else:
            short = body[: left[0] + 1] if type(body) is str else body
            put(repr(short) if tag == "" else str(short) if tag in ("i", "D") else f"0x{short}" if tag in ("b", "B") else repr(codec.decode(tree)))
    except (ValueError, codec.Refused, TypeError):
        name = tree.get("n") if type(tree) is dict else None
        put(f"<{name if type(name) is str else '?'} object>")
