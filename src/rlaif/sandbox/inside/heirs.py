"""Classes of a test that inherit from a class of the solution: `class Square(Shape): ...` where `Shape` is a Remote.

The class that counts is made in S, as a subclass of S's own, and the methods that the test gave it call back into the test. On this side stands a
class of the same name, so that `super()`, `isinstance` and class attributes mean what they say; to call it makes an instance in S.
"""

from __future__ import annotations

import types
from typing import Any

from . import operators
from .peer import Remote, _ask

SPECIAL = frozenset(
    {*map(operators.special_name, operators.ON_INSTANCES), *(f"__{op}__" for op in ("init", "call", "iter", "next", "enter", "exit"))}
)
"""Special methods that may be inherited and overridden; the others make classes what they are."""


def _crosses(name: Any) -> bool:
    return type(name) is str and name.isidentifier() and (name in SPECIAL or not name.startswith("__"))


class Inherited:
    """An attribute of the solution's class, seen from a class of the test: bound to the instance for `super().name`, as it is for `Square.name`."""

    def __init__(self, parent: Remote, name: str) -> None:
        self.parent, self.name = parent, name

    def __get__(self, instance: Any, owner: type) -> Any:
        return _ask(self.parent, "get", self.name) if instance is None else _ask(self.parent, "bound", instance, self.name)


class Heir(type):
    """The test's side of such a class. `_remote` is S's."""

    _remote: Remote
    _parent: Remote

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Heir:
        cls = super().__new__(mcs, name, bases, namespace, **options)
        members: dict[str, Any] = {}
        known: set[str] = set()  # to S, from a class that stands before
        for part in cls.__mro__[:-1]:
            if "_remote" in vars(part):
                known |= vars(part).keys()
            else:
                members |= {key: _member(value, cls) for key, value in vars(part).items() if _crosses(key) and key not in known | members.keys()}
        parent = next(part for part in cls.__mro__ if "_remote" in vars(part))
        cls._remote = _ask(parent._remote, "derive", name, members)  # type: ignore[attr-defined]
        return cls

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = cls._remote(*args, **kwargs)
        if type(made) is Remote:
            peer = cls._parent._peer
            object.__setattr__(made, "_built", int(peer.class_problem and cls._parent is peer.stub))
        return made

    def __instancecheck__(cls, value: Any) -> bool:
        return type(value) is Remote and bool(_ask(cls._remote, "isinstance", value))


def _member(value: Any, cls: type) -> tuple[str, Any]:
    """(kind, what S makes it from)."""
    if isinstance(value, types.FunctionType):
        return "method", _adopting(value, cls)
    if isinstance(value, staticmethod):
        return "static", value.__func__
    if isinstance(value, classmethod):
        return "class", value.__func__
    if isinstance(value, property):
        return "property", [None if part is None else _adopting(part, cls) for part in (value.fget, value.fset)]
    return "value", value


def _adopting(function: Any, cls: type) -> Any:
    """The method, for an instance that S hands over: `super()` within it has to find this class."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if type(self) is not Remote:
            raise TypeError(f"a method of {cls.__name__} needs one of its instances")  # nothing of the test's own may be put in its place
        object.__setattr__(self, "_class", cls)
        return function(self, *args, **kwargs)

    return method


def _entries(self: Remote, bases: tuple[Any, ...]) -> tuple[type, ...]:
    """`Remote.__mro_entries__`: what stands in this process for the class of the solution."""
    inherited = {name: Inherited(self, name) for name in _ask(self, "dir") if _crosses(name)}
    return (type.__new__(Heir, self._name or "Solution", (), {**inherited, "_parent": self, "_remote": self}),)


Remote.__mro_entries__ = _entries  # type: ignore[attr-defined]  (here, or the two files would need each other)
