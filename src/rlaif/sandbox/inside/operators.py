"""What one side may ask of the other's objects, and which exceptions cross between the processes."""

from __future__ import annotations

import ast
import builtins
import contextlib
import operator
import re
import types
from collections.abc import Callable
from typing import Any

UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "iter": iter, "next": next, "bool": bool, "str": str, "repr": repr, "hash": hash, "int": int, "float": float,
    "complex": complex, "index": operator.index, "abs": abs, "neg": operator.neg, "pos": operator.pos, "invert": operator.invert,
    "reversed": reversed,
}  # fmt: skip
BINARY: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift")
}
BINARY |= {"divmod": divmod}
COMPARE: dict[str, Callable[..., Any]] = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def _swapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda mine, other: function(other, mine)


def _enter(target: Any) -> Any:
    return type(target).__enter__(target)


def _exit(target: Any) -> Any:
    return type(target).__exit__(target, None, None, None)


def _isinstance(cls: Any, value: Any) -> bool:
    return isinstance(value, cls)


def _await(target: Any) -> Any:
    import asyncio  # large, and rarely asked for

    async def wait() -> Any:
        return await target

    return asyncio.run(wait())


def _state(target: Any) -> dict[str, Any]:
    slots = [name for cls in type(target).__mro__ for name in cls.__dict__.get("__slots__", ()) if hasattr(target, name)]
    return {**{name: getattr(target, name) for name in slots}, **getattr(target, "__dict__", {})}


def _derive(base: Any, name: str, members: dict[str, tuple[str, Any]]) -> Any:
    """A subclass whose members are the test's (heirs.py)."""
    made = {key: _MEMBERS[kind](value) for key, (kind, value) in members.items()}
    return types.new_class(name, (base,), {}, lambda namespace: namespace.update(made))


def _method(function: Any) -> Any:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)  # a real function, which binds its instance


_MEMBERS: dict[str, Callable[[Any], Any]] = {
    "method": _method,
    "static": staticmethod,
    "class": lambda function: classmethod(_method(function)),
    "property": lambda parts: property(*(None if part is None else _method(part) for part in parts)),
    "value": lambda value: value,
}


def _bound(base: Any, instance: Any, name: str) -> Any:
    """What `super().name` means to the first class below `base`."""
    for cls in base.__mro__:
        if name in cls.__dict__:
            value = cls.__dict__[name]
            return value.__get__(instance, type(instance)) if hasattr(value, "__get__") else value
    raise AttributeError(f"no attribute {name}")


OPERATIONS: dict[str, Callable[..., Any]] = {
    **UNARY, **BINARY, **COMPARE,
    **{"r" + name: _swapped(function) for name, function in BINARY.items()},
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    "get": getattr, "set": setattr, "del": delattr, "dir": dir, "round": round, "format": format,
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem, "contains": operator.contains,
    "enter": _enter, "exit": _exit, "isinstance": _isinstance, "await": _await, "state": _state, "send": lambda target, value: target.send(value),
    "derive": _derive, "bound": _bound,
}  # fmt: skip

ON_INSTANCES = frozenset(
    {*UNARY, *BINARY, *("r" + name for name in BINARY), *COMPARE, "getitem", "setitem", "delitem", "contains", "round", "format"} - {"iter", "next"}
)
"""What the solution may ask of an instance of a class that the test defines, beside calls, iteration, `with` and plain attributes."""


def special_name(op: str) -> str:
    """The method that Python calls for an operation of OPERATIONS."""
    return f"__{op.rstrip('_')}__"


ALLOWED_EXCEPTIONS = frozenset(
    name for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, Exception) and not issubclass(cls, Warning)
)
"""Names of exception types that cross by name. SystemExit, KeyboardInterrupt and GeneratorExit are not among them."""


_DESCRIBED = re.compile(r"\w+(?:: (.*?))?(?: \(line \d+ of the solution\))?", re.DOTALL)
"""What `describe` makes of an exception; the group is its own text."""


class SolutionError(Exception):
    """An exception of the other side whose type is its own."""


def describe(error: BaseException, limit: int = 400) -> str:
    """`Type: text`, for people, without trusting either."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        text = str(error)
    except BaseException:
        text = "?"
    text = text if type(text) is str else "?"
    where = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<solution>":
            where = f" (line {trace.tb_lineno} of the solution)"
        trace = trace.tb_next
    return f"{name}: {text[:limit]}{where}" if text else f"{name}{where}"


def remote_exception(error: BaseException) -> list[str]:
    """[name of the nearest built-in type, text] of an exception."""
    for cls in type.mro(type(error)):
        name = type.__getattribute__(cls, "__name__")
        if vars(builtins).get(name) is cls and name != "object":
            break
    else:
        name = "BaseException"
    return [name, describe(error)]


def local_exception(name: Any, text: Any) -> Exception:
    """The exception to raise here for one that was raised there. Never anything that could end this process."""
    text = text[:2000] if isinstance(text, str) else ""
    if isinstance(name, str) and name in ALLOWED_EXCEPTIONS and not name.startswith("Unicode"):
        described = _DESCRIBED.fullmatch(text)
        if described and described[1] is None:  # it was raised without a text
            return getattr(builtins, name)()
        bare: Any = described[1] if described else text
        if name == "KeyError":  # its text is the key's repr
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                bare = ast.literal_eval(bare)
        return getattr(builtins, name)(bare)
    return SolutionError(text or str(name)[:100])
