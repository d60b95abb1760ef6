"""Values beyond the codec's own that cross between a test child and a solution child: dates, counters, named tuples, arrays, types.

P never asks for them and never decodes them. The decoder builds the standard library's own types (and numpy's plain arrays), so
nothing that a solution defines comes with them.
"""

from __future__ import annotations

import builtins
import collections
import functools
import sys
from typing import Any

from . import codec, operators

_PLAIN = ("int", "float", "str", "bool", "list", "dict", "tuple", "set", "frozenset", "bytes", "bytearray", "complex", "object", "type", "range")
TYPES = {name: getattr(builtins, name) for name in (*_PLAIN, *sorted(operators.ALLOWED_EXCEPTIONS))}
_NAMES = {cls: name for name, cls in reversed(TYPES.items())}
MAPPINGS = (collections.Counter, collections.OrderedDict, collections.defaultdict)
MAX_ARRAY = 2**20
"""Bytes of an array that crosses as a value; a larger one is a foreign object."""
ARRAY_KINDS = "biufcUS"


def encode(encoder: Any, kind: type, value: Any, depth: int) -> Any:
    """The tree of a value of these types, or None for any other."""
    body = _body(encoder, kind, value, depth)
    return None if body is None else {"X": body}


def _body(encoder: Any, kind: type, value: Any, depth: int) -> list[Any] | None:
    if kind is type:
        return ["type", _NAMES[value]] if value in _NAMES else None
    datetime = sys.modules.get("datetime")  # no value of its types without it
    if datetime is not None and kind in (datetime.date, datetime.datetime, datetime.time):
        return [kind.__name__, value.isoformat()]
    if datetime is not None and kind is datetime.timedelta:
        return ["timedelta", value.days, value.seconds, value.microseconds]
    if kind is collections.defaultdict:
        factory = value.default_factory
        if factory is not None and (type(factory) is not type or factory not in _NAMES):
            return None
        return ["defaultdict", encoder._pairs(value.items(), depth), None if factory is None else _NAMES[factory]]
    if kind is collections.Counter or kind is collections.OrderedDict:
        return [kind.__name__, encoder._pairs(value.items(), depth)]
    fields = getattr(kind, "_fields", None)
    if type(fields) is tuple and tuple in type.mro(kind) and all(type(field) is str for field in fields):
        return ["namedtuple", kind.__name__, list(fields), encoder._many((*tuple.__iter__(value),), depth)]
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and value.dtype.kind in ARRAY_KINDS and value.nbytes <= MAX_ARRAY:
        return ["ndarray", value.dtype.str, list(value.shape), value.tobytes().hex()]
    return None


@functools.lru_cache(maxsize=64)
def _named(name: str, fields: tuple[str, ...]) -> Any:
    return collections.namedtuple(name, fields)  # checks that they are identifiers


def _decode(body: Any, handles: Any) -> Any:
    if handles is None or type(body) is not list:
        raise codec.Refused("malformed")
    match body:
        case ["type", str(name)]:
            return TYPES[name]
        case ["date" | "datetime" | "time" as name, str(text)]:
            import datetime

            return getattr(datetime, name).fromisoformat(text)
        case ["timedelta", int(days), int(seconds), int(micros)]:
            import datetime

            return datetime.timedelta(days, seconds, micros)
        case ["Counter" | "OrderedDict" as name, list(pairs)]:
            out = getattr(collections, name)()
            out.update({codec.decode(key, handles): codec.decode(item, handles) for key, item in pairs})
            return out
        case ["defaultdict", list(pairs), factory]:
            default = None if factory is None else TYPES[factory]
            return collections.defaultdict(default, {codec.decode(key, handles): codec.decode(item, handles) for key, item in pairs})
        case ["namedtuple", str(name), list(fields), list(values)] if len(fields) <= 100:
            return _named(name, tuple(fields))(*(codec.decode(item, handles) for item in values))
        case ["ndarray", str(dtype), list(shape), str(data)] if len(dtype) <= 16 and len(data) <= 2 * MAX_ARRAY:
            numpy = sys.modules["numpy"]
            kind = numpy.dtype(dtype)
            if kind.kind not in ARRAY_KINDS:
                raise codec.Refused("malformed")
            return numpy.frombuffer(bytes.fromhex(data), kind).reshape(shape).copy()
    raise codec.Refused("malformed")


codec.DECODE["X"] = _decode


def is_array(value: Any) -> bool:
    """True for numpy's plain arrays."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray
