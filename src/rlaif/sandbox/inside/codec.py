"""Values as JSON trees: exact built-in types with tags, depth and size capped. Never pickle.

| Python | tree |
| --- | --- |
| None, bool, int below 2**63, finite float, str | itself |
| list | JSON array |
| tuple, set, frozenset, deque | {"t"|"s"|"f"|"q": [...]} |
| dict | {"d": [[key, value], ...]} |
| big int | {"i": hex} |
| nan, inf | {"F": text} |
| complex, range, bytes, bytearray, Decimal, Fraction | {"c"|"r"|"b"|"B"|"D"|"Q": ...} |
| anything else | {"o": handle, "n": type name} if the encoder was given `handles`, refused otherwise |

Subclasses are cast down through the base type's own methods, so that an overridden `__iter__`, `__eq__` or `__str__` is
never asked. The encoder runs in S and may be patched by the solution: it is a convenience of S. The decoder runs in T and
builds exact built-in types only; the client (P) compares trees and builds nothing.
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 200
MAX_NODES = 400_000
_I63 = 2**63
_MAX_BITS = 2**22

Handles = Callable[[Any], Any]
Rich = Callable[[Any, type, Any, int], Any]


class Refused(ValueError):
    """A value that cannot cross: too deep, too large, or of a foreign type."""


def encode(value: Any, handles: Handles | None = None, rich: Rich | None = None) -> Any:
    """The tree of a value. `handles` turns a foreign object into a tree, or raises. `rich`: `rich.encode`, between S and T. Raises Refused."""
    return _Encoder(handles, rich).encode(value, 0)


class _Encoder:
    __slots__ = ("handles", "nodes", "rich")

    def __init__(self, handles: Handles | None, rich: Rich | None) -> None:
        self.handles, self.rich = handles, rich
        self.nodes = 0

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            if -_I63 < value < _I63:
                return value
            if value.bit_length() > _MAX_BITS:
                raise Refused("an integer of more than 4 million bits")
            return {"i": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"F": repr(value)}
        self.nodes += 1
        if depth > MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} deep (or cyclic)")
        if kind is list:
            return self._many(value, depth)
        if kind is tuple:
            return {"t": self._many(value, depth)}
        if kind is dict:
            return {"d": self._pairs(value.items(), depth)}
        if kind is set:
            return {"s": self._many(value, depth)}
        return self._rare(kind, value, depth)

    def _many(self, values: Any, depth: int) -> list[Any]:
        self.nodes += len(values)
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} parts")
        depth += 1
        encode = self.encode
        return [encode(item, depth) for item in values]

    def _pairs(self, items: Any, depth: int) -> list[Any]:
        self.nodes += 2 * len(items)
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} parts")
        depth += 1
        encode = self.encode
        return [[encode(key, depth), encode(item, depth)] for key, item in items]

    def _rare(self, kind: type, value: Any, depth: int) -> Any:
        if kind is frozenset:
            return {"f": self._many(value, depth)}
        if kind is complex:
            return {"c": [self.encode(value.real, depth), self.encode(value.imag, depth)]}
        if kind is range:
            return {"r": [self.encode(part, depth) for part in (value.start, value.stop, value.step)]}
        if kind is bytes or kind is bytearray:
            return {"b" if kind is bytes else "B": value.hex()}
        if kind is collections.deque:
            return {"q": self._many(value, depth)}
        if kind is _rarely("decimal", "Decimal"):
            return {"D": str(value)}
        if kind is _rarely("fractions", "Fraction"):
            return {"Q": [self.encode(value.numerator, depth), self.encode(value.denominator, depth)]}
        if self.rich is not None:
            tree = self.rich(self, kind, value, depth)
            if tree is not None:
                return tree
        down = cast_down(kind, value)
        if type(down) in _EXACT and down is not value:
            return self.encode(down, depth)
        if self.handles is not None:
            return self.handles(value)
        raise Refused(f"a value of type {type.__getattribute__(kind, '__name__')}")


def _rarely(module: str, name: str) -> Any:
    """A type of a module that is loaded only where somebody uses it (modules.py), or None: then there is no value of it."""
    return getattr(sys.modules.get(module), name, None)


_EXACT = frozenset({int, float, str, list, tuple, dict, set, frozenset, bytes, bytearray, complex, bool})


def cast_down(kind: type, value: Any) -> Any:
    """An instance of a subclass as the exact built-in value underneath; other values unchanged."""
    mro = type.mro(kind)
    for base, down in _DOWN:
        if base in mro:
            return down(value)
    # numpy's integers and bools are not subclasses of ours; their item() is what an honest program means.
    if getattr(kind, "__module__", "") == "numpy" and any(cls.__name__ == "generic" for cls in mro):
        return value.item()
    return value


_DOWN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda v: int.__add__(v, 0)),
    (float, lambda v: float.__add__(v, 0.0)),
    (str, lambda v: str.__str__(v) if type(str.__str__(v)) is str else str.__getitem__(v, slice(None))),
    (list, lambda v: [*list.__iter__(v)]),
    (tuple, lambda v: (*tuple.__iter__(v),)),
    (dict, lambda v: {k: dict.__getitem__(v, k) for k in dict.__iter__(v)}),
    (set, lambda v: {*set.__iter__(v)}),
    (frozenset, lambda v: frozenset({*frozenset.__iter__(v)})),
    (bytes, lambda v: bytes.__getitem__(v, slice(None))),
    (bytearray, lambda v: bytearray.__getitem__(v, slice(None))),
    (complex, lambda v: complex.__add__(v, 0j)),
)


def decode(tree: Any, handles: Handles | None = None) -> Any:
    """The value of a tree, as exact built-in types. `handles` gets foreign objects' trees. Raises Refused."""
    kind = type(tree)
    if kind is list:
        return [decode(item, handles) for item in tree]
    if kind is not dict:
        return tree
    if "o" in tree or "y" in tree:
        if handles is None:
            raise Refused("a foreign object")
        return handles(tree)
    if len(tree) != 1:
        raise Refused("malformed")
    ((tag, body),) = tree.items()
    try:
        return DECODE[tag](body, handles)
    except Refused:
        raise
    except (KeyError, ValueError, TypeError, ArithmeticError, IndexError) as error:
        raise Refused(f"malformed: {type(error).__name__}") from None


def _items(body: Any, handles: Handles | None) -> list[Any]:
    if type(body) is not list:
        raise Refused("malformed")
    return [decode(item, handles) for item in body]


def _text(body: Any, limit: int = 2**23) -> str:
    if type(body) is not str or len(body) > limit:
        raise Refused("malformed")
    return body


def _decimal(text: str) -> Any:
    import decimal

    return decimal.Decimal(text)


def _fraction(parts: list[Any]) -> Any:
    import fractions

    # Reducing two huge numbers takes minutes, and it would be the trusted side's minutes.
    if len(parts) != 2 or any(type(part) is not int or part.bit_length() > 4096 for part in parts):
        raise Refused("malformed")
    return fractions.Fraction(*parts)


DECODE: dict[str, Callable[[Any, Handles | None], Any]] = {
    "t": lambda body, h: tuple(_items(body, h)),
    "s": lambda body, h: set(_items(body, h)),
    "f": lambda body, h: frozenset(_items(body, h)),
    "q": lambda body, h: collections.deque(_items(body, h)),
    "d": lambda body, h: dict(_items(pair, h) for pair in body),
    "i": lambda body, h: int(_text(body, _MAX_BITS // 4 + 4), 16),
    "F": lambda body, h: float(_text(body)),
    "c": lambda body, h: complex(*_items(body, h)),
    "r": lambda body, h: range(*_items(body, h)),
    "b": lambda body, h: bytes.fromhex(_text(body)),
    "B": lambda body, h: bytearray.fromhex(_text(body)),
    "D": lambda body, h: _decimal(_text(body, 4096)),
    "Q": lambda body, h: _fraction(_items(body, h)),
}
