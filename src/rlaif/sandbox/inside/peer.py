"""The solution as the test child sees it: `Peer` is the channel to S, `Remote` stands for one of S's objects.

What comes from S is decoded to exact built-in values or wrapped in `Remote`, so nothing that S defines decides a comparison:
`==` between a Remote and anything else is False, and arithmetic that mixes a Remote with the test's own numbers is refused
(or `abs(f(x) - 0.5) < 1e-6` could be answered by an object that lies in `__sub__`), but for instances that the test
itself constructed from a class it asked for and what their arithmetic gives. What such an instance holds is not one, and the
difference between one and a number is never a number.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from typing import Any

from . import codec, operators, rich
from .protocol import ANSWER, ASK, CALLBACK, RETURN, BlockingChannel, Broken


class Tampering(BaseException):
    """S broke the protocol. Not an Exception, so that a test's own `except Exception` cannot swallow it."""


class Gone(BaseException):
    """S is dead or closed its channel."""


class Peer:
    """T's end of the channel to S."""

    def __init__(self, fd: int, class_problem: bool) -> None:
        self.channel = BlockingChannel(fd)
        self.number = 1_000_000  # P's own questions have smaller numbers
        self.mine: list[Any] = []
        self.places: dict[int, int] = {}
        self.stub: Any = None
        self.stops = False
        self.class_problem = class_problem

    def ask(self, request: dict[str, Any], args: Any = (), kwargs: dict[str, Any] | None = None, built: bool = False) -> Any:
        """Ask S, serve its callbacks meanwhile, apply its mutations of the arguments, and return or raise what it did."""
        request["a"] = [codec.encode(arg, self._tree, rich.encode) for arg in args]
        if kwargs:
            request["k"] = {key: codec.encode(arg, self._tree, rich.encode) for key, arg in kwargs.items()}
        self.number += 1
        number = self.number
        try:
            self.channel.send(number, ASK, request)
            while True:
                got, kind, reply = self.channel.recv()
                if type(reply) is not dict or kind not in (ANSWER, CALLBACK) or got != number:
                    raise Tampering("a frame that nobody asked for")
                if kind == ANSWER:
                    break
                self.channel.send(number, RETURN, self._serve(reply))
        except Broken as error:
            raise Gone(str(error)) from None
        except OSError as error:
            raise self._why_it_ended(error) from None
        except (ValueError, RecursionError) as error:
            raise Tampering(f"a malformed frame: {error}") from None
        if type(said := reply.get("p")) is str:
            sys.stdout.write(said)  # what it printed, where the test looks for it
        if "e" in reply:
            error = reply["e"]
            if type(error) is not list or len(error) != 2:
                raise Tampering("a malformed frame")
            raised = operators.local_exception(*error)
            if type(raised) is StopIteration and not self.stops and request["op"] not in ("next", "send"):
                # It would end the test's own `map` or `zip` as if all cases were done.
                raise RuntimeError("the solution raised StopIteration")
            raise raised
        for index, tree in reply.get("m", ()):
            update((kwargs or {})[index] if type(index) is str else args[index], codec.decode(tree, self._object))
        value = codec.decode(reply.get("v"), self._object)
        if built and type(value) is Remote:
            object.__setattr__(value, "_built", True)
        return value

    def _why_it_ended(self, error: OSError) -> Gone | Tampering:
        """S hung up before it was asked: what it said unasked tells one that lied from one that died. Its end is shut, so nothing waits."""
        try:
            self.channel.recv()
        except (Broken, OSError, ValueError, RecursionError):
            return Gone(str(error))
        return Tampering("a frame that nobody asked for")

    def _tree(self, value: Any) -> Any:
        if type(value) is Remote:
            return {"o": value._id}
        kind = type(value)
        if callable(value) or hasattr(kind, "__next__") or kind.__module__ == "tests":
            place = self.places.setdefault(id(value), len(self.mine))  # one object is one handle, or it would not equal itself
            if place == len(self.mine):
                self.mine.append(value)  # which keeps it alive, so that its id stays its own
            return {"y": place, "n": kind.__name__, "c": int(kind.__module__ == "tests")}
        if hasattr(kind, "__iter__"):
            return {"t": [codec.encode(item, self._tree, rich.encode) for item in value]}
        raise codec.Refused(f"a test's own value of type {kind.__name__}")

    def _object(self, tree: Any) -> Any:
        if "y" in tree:
            return self.mine[tree["y"]]
        if type(tree["o"]) is not int:
            raise codec.Refused("malformed")
        remote = Remote(self, tree["o"], str(tree.get("n", ""))[:60])
        return _awaited(remote) if remote._name == "coroutine" else remote

    def _serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Let S use an object that the test handed to it: call it, iterate it, touch its plain attributes. Of an instance of one of the test's own
        classes it may ask operators as well; of a stream, its methods."""
        try:
            target = self.mine[request["y"]]
            args = [codec.decode(arg, self._object) for arg in request.get("a", [])]
            kwargs = {str(key): codec.decode(arg, self._object) for key, arg in request.get("k", {}).items()}
            op, name = request["op"], str(request.get("n", ""))
            own, stream = (type(target).__module__ == module for module in ("tests", "_io"))
            if op in ("get", "set") and (name.startswith("_") or not (own or (stream and op == "get"))):
                raise AttributeError(f"no attribute {name}")
            if op == "set" and callable(getattr(type(target), name, None)):
                raise AttributeError(f"{name} is a method of the test's own")  # what stands before it would answer in its place
            match op:
                case "call":
                    value = target(*args, **kwargs)
                case "iter":
                    value = iter(target)
                case "next":
                    value = next(target)
                case "get":
                    value = getattr(target, name)
                case "set":
                    value = setattr(target, name, args[0])
                case "enter" | "exit" if own or stream:
                    value = operators.OPERATIONS[op](target)
                case _ if own and op in operators.ON_INSTANCES:
                    value = operators.OPERATIONS[op](target, *args)
                case _:
                    raise TypeError(f"{type(target).__name__} does not support that")
            return {"v": codec.encode(value, self._tree, rich.encode)}
        except Exception as error:
            return {"e": operators.remote_exception(error)}


class Remote:
    """An object of the solution, seen from the test."""

    __slots__ = ("__weakref__", "_built", "_class", "_id", "_name", "_peer")

    def __init__(self, peer: Peer, id_: int, name: str, built: int = False) -> None:
        for key, value in (("_peer", peer), ("_id", id_), ("_name", name), ("_built", built), ("_class", None)):
            object.__setattr__(self, key, value)

    @property
    def __class__(self) -> type:
        """The test's own class whose method has it at hand (heirs.py): `super()` looks here. Else one by the name that S gives its class."""
        return self._class or _named(self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = {"op": "entry"} if self._id == -1 else {"op": "call", "o": self._id}
        return self._peer.ask(request, args, kwargs, built=self._peer.class_problem and self is self._peer.stub)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name in ("__array__", "__array_interface__", "__array_struct__", "__index__"):
            raise AttributeError(name)
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "del", name)

    def __contains__(self, item: Any) -> bool:
        if self._built:
            return bool(_ask(self, "contains", item))
        return any(item is other or item == other for other in self)  # never the word of an object nobody asked for

    def __abs__(self) -> Any:
        if self._built is TOLD:
            raise TypeError("the distance between a solution's own object and a number is not left to it")
        return _ask(self, "abs")

    def __round__(self, *digits: Any) -> Any:
        return _ask(self, "round", *digits)

    def __format__(self, spec: str) -> str:
        return _exact(_ask(self, "format", spec), str)

    def __enter__(self) -> Any:
        return _ask(self, "enter")

    def __exit__(self, *_: Any) -> None:
        _ask(self, "exit")

    def __instancecheck__(self, value: Any) -> bool:
        return type(value) is Remote and bool(_ask(self, "isinstance", value))

    def __getitem__(self, key: Any) -> Any:
        if type(key) is slice:
            raise TypeError("slices of a solution's own object do not cross")
        return _ask(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _ask(self, "delitem", key)


@functools.lru_cache(256)
def _named(name: str) -> type:
    """For `value.__class__.__name__`. An heir of Remote, so that it is nothing that the test knows."""
    return type(name or "object", (Remote,), {"__slots__": ()})


def type_of(value: Any) -> type:
    """What `type(value)` is to a test."""
    return value.__class__ if type(value) is Remote else type(value)


async def _awaited(remote: Remote) -> Any:
    """A coroutine of the solution's, for the test to await or to run: it runs to its end in S."""
    return _ask(remote, "await")


def _exact(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}")
    return value


def _ask(remote: Remote, op: str, *args: Any) -> Any:
    if remote._id == -1:
        target = remote._peer.ask({"op": "global", "n": remote._name})
        object.__setattr__(remote, "_id", target._id) if op != "call" and type(target) is Remote else None
    value = remote._peer.ask({"op": op, "o": remote._id}, args)
    if remote._built and op in _SAME_KIND and type(value) is Remote:
        object.__setattr__(value, "_built", remote._built)
    return value


def compare_by_value(cls: type) -> None:
    """Let the `==` of a class that both sides define (the preamble's) see S's objects as what S says their attributes are.

    Else it would see a Remote, which is no instance of the class, and whose methods are S's own.
    """
    own = cls.__dict__.get("__eq__")
    if own is None:
        return

    def equal(self: Any, other: Any) -> Any:
        if type(other) is not Remote:
            return own(self, other)
        twin = _twin(other, cls)
        return twin is not None and own(self, twin)

    cls.__eq__ = equal  # type: ignore[method-assign,assignment]


def _twin(remote: Remote, cls: type) -> Any:
    """An object of this class with the attributes that S tells, or None if it says that it has no such object."""
    if remote._name != cls.__name__:
        return None
    state = _ask(remote, "state")
    if type(state) is not dict or any(callable(getattr(cls, str(name), None)) for name in state):
        return None  # an attribute that stands before a method of the class would answer in its place
    twin = object.__new__(cls)
    for name, value in state.items():
        object.__setattr__(twin, str(name), value)
    return twin


_SAME_KIND = frozenset({*operators.BINARY, *("r" + op for op in operators.BINARY), "neg", "pos", "invert", "abs", "round", "enter"})
TOLD = 2
"""`_built` of a difference with a number of the test's: it has been told what `abs` of it should hide."""


def _install() -> None:
    kinds = {"len": int, "bool": bool, "str": str, "repr": str, "hash": int, "int": int, "float": float, "complex": complex, "index": int}

    def unary(op: str) -> Any:
        kind = kinds.get(op)
        if kind is None:
            return lambda self: _ask(self, op)
        return lambda self: _exact(_ask(self, op), kind)

    def binary(op: str) -> Any:
        def run(self: Remote, other: Any) -> Any:
            if type(other) is not Remote and not self._built:
                return NotImplemented
            value = _ask(self, op, other)
            if op in ("sub", "rsub") and type(other) in (int, float, complex):
                if type(value) is not Remote:
                    raise TypeError("the difference between a solution's own object and a number is not left to it")
                object.__setattr__(value, "_built", TOLD)
            return value

        return run

    def compare(op: str) -> Any:
        def run(self: Remote, other: Any) -> Any:
            if type(other) is not Remote:
                return NotImplemented
            return bool(_ask(self, op, other))

        return run

    for op in operators.UNARY:
        if op != "abs":
            setattr(Remote, f"__{op}__", unary(op))
    for op in operators.BINARY:
        name = op.rstrip("_")
        setattr(Remote, f"__{name}__", binary(op))
        setattr(Remote, f"__r{name}__", binary("r" + op))
    for op in operators.COMPARE:
        setattr(Remote, f"__{op}__", compare(op))


_install()


def update(target: Any, new: Any) -> None:
    """Give a container of the test the contents that S's copy has now, keeping the identity of what is nested and unchanged in shape."""
    if type(target) is not type(new):
        return
    if type(target) is tuple and len(target) == len(new):
        for item, after in zip(target, new, strict=True):
            update(item, after)
    if rich.is_array(target) and target.shape == new.shape:
        target[...] = new
    if type(target) is list:
        same = len(target) == len(new)
        for index, item in enumerate(new):
            if same and type(target[index]) is type(item) and type(item) in (list, dict, set, deque):
                update(target[index], item)
                new[index] = target[index]
        target[:] = new
    elif type(target) is dict or type(target) in rich.MAPPINGS:
        for key, item in new.items():
            if key in target and type(target[key]) is type(item) and type(item) in (list, dict, set, deque):
                update(target[key], item)
                new[key] = target[key]
        target.clear()
        target.update(new)
    elif type(target) is set:
        target.clear()
        target.update(new)
    elif type(target) is bytearray:
        target[:] = new
    elif type(target) is deque:
        target.clear()
        target.extend(new)
