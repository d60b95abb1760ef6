"""The test child (T): runs tests unmodified, with stubs in place of the solution's objects. It never runs the solution's code."""

from __future__ import annotations

import ast
import importlib
import sys
import types
from typing import Any

from . import codec, heirs, operators, protocol  # noqa: F401  (heirs: classes that inherit from the solution's)
from .peer import Gone, Peer, Remote, Tampering, compare_by_value, type_of
from .protocol import ANSWER, ASK, BYE, MAX_TEXT, BlockingChannel, Broken

_COMMON = "math cmath sys re random string itertools functools collections heapq bisect copy operator datetime json"
COMMON = frozenset(_COMMON.split())


class _SolutionModule(types.ModuleType):
    """What `from solution import name` finds in a test."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        stub = self.stubs.get(name)
        return stub if stub is not None else self.peer.ask({"op": "global", "n": name})


def run_test(test: dict[str, Any], job: dict[str, Any], peer: Peer) -> Any:
    """Run one test. `call`: the tree of the last expression's value. `code`: None; a failed test raises."""
    entry = job["entry"]
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    scope = module.__dict__
    if job["preamble"]:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), scope)
        for value in list(scope.values()):
            if isinstance(value, type) and value.__module__ == "tests":
                compare_by_value(value)
    peer.stops = "StopIteration" in test["input"]
    stub = peer.stub = Remote(peer, -1, entry or "")
    if entry:
        scope[entry] = stub
    scope["candidate"] = stub
    solution = _SolutionModule("solution")
    solution.__dict__.update(peer=peer, stubs={entry: stub})
    sys.modules["solution"] = solution
    tree = ast.parse(test["input"])
    for node in ast.walk(tree):  # data sets use `math` and `sys` in tests as if the solution's imports were theirs
        if type(node) is ast.Name and node.id in COMMON and node.id not in scope:
            scope[node.id] = importlib.import_module(node.id)
        if type(node) is ast.Call and type(node.func) is ast.Name and node.func.id == "type" and len(node.args) == 1:
            node.func.id, scope["_type_of"] = "_type_of", type_of
    if test["form"] == "call":
        last = ast.Expression(tree.body.pop().value)  # the client has checked that it is an expression
        exec(compile(tree, "<test>", "exec"), scope)
        return codec.encode(eval(compile(last, "<test>", "eval"), scope), peer._tree)
    _open_main(tree)
    if "unittest" in sys.modules or "unittest" in test["input"]:
        import unittest

        unittest.main = lambda *_, **__: None  # type: ignore[assignment]  (the cases are run below, whoever calls for it)
    exec(compile(tree, "<test>", "exec"), scope)
    check = scope.get("check")
    if isinstance(check, types.FunctionType):
        _finish(check(stub))
        return None
    if "unittest" in sys.modules:
        _run_cases(scope)
    for name, value in list(scope.items()):
        if name.startswith("test_") and isinstance(value, types.FunctionType) and value.__code__.co_argcount == 0:
            _finish(value())
        elif name.startswith("Test") and isinstance(value, type) and value.__module__ == "tests":
            _run_methods(value)
    return None


def _open_main(tree: ast.Module) -> None:
    """What a file does when it is run by itself is part of the test: `if __name__ == "__main__":` holds."""
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and len(node.test.comparators) == 1:
            sides = [node.test.left, node.test.comparators[0]]
            named = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
            if named and isinstance(node.test.ops[0], ast.Eq) and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides):
                node.test = ast.copy_location(ast.Constant(True), node.test)


def _finish(value: Any) -> None:
    """A coroutine does nothing, and fails nothing, until it is run."""
    if isinstance(value, types.CoroutineType):
        import asyncio

        asyncio.run(value)


def _run_methods(case: type) -> None:
    """A class in pytest's manner: a fresh instance for each `test_` method, set up and torn down."""
    unittest: Any = sys.modules.get("unittest")
    if unittest is not None and issubclass(case, unittest.TestCase):
        return  # run already
    for name in [name for name in dir(case) if name.startswith("test_")]:
        instance = case()
        for step in ("setup_method", name, "teardown_method"):
            if hasattr(instance, step):
                _finish(getattr(instance, step)())


def _run_cases(scope: dict[str, Any]) -> None:
    """Run the test's own unittest classes. Raises AssertionError for the first that fails, or that has no tests."""
    import unittest

    cases = [value for value in scope.values() if isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == "tests"]
    for case in cases:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        if not result.wasSuccessful() or not result.testsRun:
            problems = result.failures + result.errors
            raise AssertionError(problems[0][1][-300:] if problems else "no tests ran")


def main(fd: int, peer_fd: int) -> None:
    """The life of T: JOB from P, then one ANSWER a test, then BYE."""
    channel = BlockingChannel(fd)
    number, _, job = channel.recv()
    peer = Peer(peer_fd, job["class"])
    channel.send(number, ANSWER, {"ok": 1})
    while True:
        number, kind, test = channel.recv()
        if kind != ASK:
            break
        try:
            reply: dict[str, Any] = {"v": run_test(test, job, peer), "passed": True}
        except Tampering as error:
            reply = {"end": "tampering", "text": str(error)}
        except Gone:
            reply = {"end": "gone", "text": "the solution ended before it answered"}
        except BaseException as error:
            reply = {"e": operators.remote_exception(error)}
            reply["e"][1] = reply["e"][1][:MAX_TEXT]
        try:
            channel.send(number, ANSWER, reply)
        except (Broken, RecursionError, ValueError):
            channel.send(number, ANSWER, {"e": ["TooLarge", "the value is too large"]})
    channel.send(number, BYE, {})
