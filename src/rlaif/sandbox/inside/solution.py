"""The solution child (S): loads the code, then answers one question at a time. It holds nothing but the code.

Everything here may be read, patched or replaced by the code it runs. That costs the code its own answers and nothing else:
whoever asks keeps the expected values and judges the bytes that come back.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import io
import json
import os
import sys
import threading
import types
from collections import deque
from typing import Any

from . import codec, operators, rich
from .protocol import ANSWER, ASK, BYE, CALLBACK, MAX_TEXT, RETURN, BlockingChannel, Oversize

_MUTABLE = (list, dict, set, bytearray, deque, tuple)


class CappedText(io.RawIOBase):
    """Where prints go: the first `limit` bytes are kept, the rest is dropped, and nothing ever blocks or fails."""

    def __init__(self, limit: int = 16384) -> None:
        self.kept = bytearray()
        self.limit = limit

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        room = self.limit - len(self.kept)
        if room > 0:
            self.kept += bytes(data[:room])
        return len(data)


class TheirObject:
    """A callable, an iterator or a stream of the test, seen from the solution. Calls, iteration, `with` and plain attributes cross."""

    __slots__ = ("_ask", "_id", "_name")

    def __init__(self, ask: Any, id_: int, name: str) -> None:
        object.__setattr__(self, "_ask", ask)
        object.__setattr__(self, "_id", id_)
        object.__setattr__(self, "_name", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask({"y": self._id, "op": "call"}, args, kwargs)

    def __iter__(self) -> Any:
        return self._ask({"y": self._id, "op": "iter"}, (), {})

    def __next__(self) -> Any:
        return self._ask({"y": self._id, "op": "next"}, (), {})

    def __getattr__(self, name: str) -> Any:
        return object.__getattribute__(self, "_ask")({"y": self._id, "op": "get", "n": name}, (), {})

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask({"y": self._id, "op": "set", "n": name}, (value,), {})

    def __enter__(self) -> Any:
        return self._ask({"y": self._id, "op": "enter"}, (), {})

    def __exit__(self, *_: Any) -> None:
        self._ask({"y": self._id, "op": "exit"}, (), {})

    def __eq__(self, other: Any) -> Any:
        return self._id == other._id if isinstance(other, TheirObject) else NotImplemented

    def __hash__(self) -> int:
        return self._id

    def __repr__(self) -> str:
        return f"<{self._name}>"


class TheirInstance(TheirObject):
    """An instance of a class that the test defines: its operators are the test's to answer, too."""

    __slots__ = ()


def _operator(op: str) -> Any:
    return lambda self, *args: object.__getattribute__(self, "_ask")({"y": object.__getattribute__(self, "_id"), "op": op}, args, {})


for _op in operators.ON_INSTANCES:
    setattr(TheirInstance, operators.special_name(_op), _operator(_op))


class Server:
    """Answers the frames of P or T. `objects` holds what the other side has handles to."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel
        self.objects: list[Any] = []
        self.entry: Any = None
        self.namespace: dict[str, Any] = {}
        self.number = 0
        self.said = 0

    # -- trees ---------------------------------------------------------------------------------------------------------
    def _handle(self, value: Any) -> Any:
        if isinstance(value, TheirObject):
            return {"y": object.__getattribute__(value, "_id")}
        self.objects.append(value)
        return {"o": len(self.objects) - 1, "n": type(value).__name__[:60]}

    def _resolve(self, tree: Any) -> Any:
        if "o" in tree:
            return self.objects[tree["o"]]
        kind = TheirInstance if tree.get("c") else TheirObject
        return kind(self._callback, tree["y"], tree.get("n", "object"))

    def _callback(self, request: dict[str, Any], args: Any, kwargs: dict[str, Any]) -> Any:
        request["a"] = [codec.encode(arg, self._handle, rich.encode) for arg in args]
        request["k"] = {str(key): codec.encode(arg, self._handle, rich.encode) for key, arg in kwargs.items()}
        self.channel.send(self.number, CALLBACK, request)
        while True:
            number, kind, reply = self.channel.recv()
            if kind == RETURN:
                break
            outer = self.number
            self.answer(number, reply)
            self.number = outer
        if "e" in reply:
            raise operators.local_exception(*reply["e"])
        return codec.decode(reply["v"], self._resolve)

    # -- the questions -------------------------------------------------------------------------------------------------
    def load(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run the preamble and the code as a module. Only the solution's own word: a lie here can but cost it the test."""
        module = types.ModuleType("solution")
        sys.modules["solution"] = module
        self.namespace = module.__dict__
        try:
            if job["preamble"]:
                exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), self.namespace)
        except BaseException as error:
            return {"bad": "load_error", "text": "in the problem's own preamble: " + operators.describe(error)}
        try:
            compiled = compile(job["code"], "<solution>", "exec", dont_inherit=True)
        except MemoryError:
            return {"bad": "memory", "text": "MemoryError while compiling"}
        except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
            return {"bad": "syntax_error", "text": operators.describe(error)}
        try:
            exec(compiled, self.namespace)
        except MemoryError:
            return {"bad": "memory", "text": "MemoryError while loading"}
        except BaseException as error:
            return {"bad": "early_exit" if isinstance(error, SystemExit) else "load_error", "text": operators.describe(error)}
        name = job["entry"]
        if name:
            self.entry = self.namespace.get(name)
            if self.entry is None and hasattr(self.namespace.get("Solution"), name):
                self.entry = getattr(self.namespace["Solution"](), name)  # LeetCode's convention
                self.namespace[name] = self.entry
            if not callable(self.entry):
                return {"bad": "missing_entry_point", "text": f"no function or class named {name}"}
        return {"ok": 1}

    def _evaluate(self, source: str) -> Any:
        try:
            return eval(compile(source, "<test>", "eval", dont_inherit=True), self.namespace)
        except SyntaxError as error:
            if error.filename != "<test>":
                raise
        tree = ast.parse(source)
        expression = tree.body.pop() if tree.body else None
        if not isinstance(expression, ast.Expr):
            raise SyntaxError("the last line of the input is not an expression")
        last = ast.Expression(expression.value)
        scope = self.namespace
        if tree.body:
            scope = dict(scope)  # one test's variables are not the next one's
            exec(compile(tree, "<test>", "exec"), scope)
        return eval(compile(last, "<test>", "eval"), scope)

    def _perform(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request["op"]
        if op == "eval":
            return {"v": codec.encode(self._evaluate(request["x"]), self._handle)}
        if op == "show":
            return {"v": repr(self._evaluate(request["x"]))[:MAX_TEXT]}
        raw = request.get("a", [])
        args = [codec.decode(arg, self._resolve) for arg in raw]
        kwargs = {key: codec.decode(arg, self._resolve) for key, arg in request.get("k", {}).items()}
        if op == "entry":
            value = self.entry(*args, **kwargs)
        elif op == "global":
            value = self.namespace[request["n"]] if request["n"] in self.namespace else getattr(builtins, request["n"])
        elif op == "drop":
            self.objects[request["o"]] = None
            return {"v": None}
        else:
            value = operators.OPERATIONS[op](self.objects[request["o"]], *args, **kwargs)
        answer = {"v": codec.encode(value, self._handle, rich.encode)}
        mutated: list[list[Any]] = []
        for index, before, arg in (*zip(range(len(raw)), raw, args, strict=True), *((key, request["k"][key], arg) for key, arg in kwargs.items())):
            if isinstance(arg, _MUTABLE) or rich.is_array(arg):
                after = codec.encode(arg, self._handle, rich.encode)
                if after != before:
                    mutated.append([index, after])
        if mutated:
            answer["m"] = mutated
        return answer

    def _say(self, reply: dict[str, Any]) -> None:
        """Let the test have what was printed since the last answer: it may be what is tested."""
        try:
            _text.flush()
            if len(_raw.kept) > self.said:
                reply["p"] = _raw.kept[self.said :].decode("utf-8", "replace")
                self.said = len(_raw.kept)
        except BaseException:
            pass  # the solution's own doing

    def answer_all(self, number: int, tests: list[list[str]]) -> None:
        """The questions of several tests in a row, answers numbered on from `number`. An error ends its test."""
        for sources in tests:
            for source in sources:
                good = self.answer(number, {"op": "eval", "x": source})
                number += 1
                if not good:
                    break

    def answer(self, number: int, request: dict[str, Any]) -> bool:
        """Answer one question, whatever happens inside; True if there was a value."""
        self.number = number
        try:
            reply = self._perform(request)
        except codec.Refused as error:
            reply = {"e": ["TooLarge", str(error)]}
        except BaseException as error:
            reply = {"e": operators.remote_exception(error)}
        if request["op"] not in ("eval", "show"):  # P shows the whole at the end
            self._say(reply)
        try:
            self.channel.send(number, ANSWER, reply)
        except (Oversize, RecursionError, MemoryError, ValueError, UnicodeError):
            self.channel.send(number, ANSWER, {"e": ["TooLarge", "the answer is too large"]})
            return False
        return "v" in reply


def exit_(code: Any = None) -> None:
    raise SystemExit(code)


_channel = BlockingChannel(-1)
_server = Server(_channel)
_raw = CappedText()
_text = io.TextIOWrapper(_raw, encoding="utf-8", errors="replace", write_through=False)  # type: ignore[arg-type]


def renew() -> None:
    """In Z, before the first rehearsal and after each: a server that has served nobody, and nothing printed."""
    global _server
    sys.stdout = sys.stderr = _text
    _server = Server(_channel)
    _raw.kept.clear()


def main(fd: int) -> None:
    """The life of S: LOAD, questions, BYE. Returns only after BYE; the caller then exits at once."""
    channel, server, raw = _channel, _server, _raw
    channel.fd = fd
    number, kind, job = channel.recv()
    loaded = server.load(job)
    channel.send(number, ANSWER, loaded)
    if "ok" not in loaded:
        return
    while True:
        number, kind, request = channel.recv()
        if kind != ASK:
            break
        if request["op"] == "evals":
            server.answer_all(number, request["x"])
        else:
            server.answer(number, request)
    try:
        sys.stdout.flush()
        text = raw.kept.decode("utf-8", "replace")
    except BaseException:
        text = ""
    channel.send(number, BYE, {"out": text})


def script(path_fd: int) -> None:
    """A whole program on standard input and output (its code comes on `path_fd`). The exit status is the verdict's ground."""
    with os.fdopen(path_fd, "rb") as stream:
        preamble, code = json.loads(stream.read())
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["solution.py"]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False), 65536), encoding="utf-8", errors="replace")
    stdout = sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False), 65536), encoding="utf-8", errors="replace")
    sys.stdin.mode, stdout.mode = "r", "w"  # type: ignore[misc]  (as the interpreter does)
    sys.__stdin__, sys.__stdout__ = sys.stdin, stdout  # type: ignore[misc]
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True)
    status = 0
    try:
        if preamble:
            exec(compile(preamble, "<preamble>", "exec", dont_inherit=True), module.__dict__)
        exec(compile(code, "<solution>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
    except BaseException as error:
        status = 99 if isinstance(error, MemoryError) else 98 if isinstance(error, SyntaxError) else 1
        try:
            sys.stderr.write(operators.describe(error))
            sys.stderr.flush()
        except BaseException:
            pass
    # What the interpreter does at its end: wait for the program's threads, run its exit functions, flush what it printed.
    for last in (threading._shutdown, atexit._run_exitfuncs, lambda: sys.stdout.flush()):  # type: ignore[attr-defined]
        try:
            last()
        except BaseException:
            status = status or (1 if last is not atexit._run_exitfuncs else 0)
    try:
        if not stdout.closed:
            stdout.flush()
    except BaseException:
        status = status or 1
    os._exit(status & 0xFF)
