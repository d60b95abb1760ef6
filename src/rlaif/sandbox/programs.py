"""The life of one program: spawn, load, ask, judge. Every verdict in this file is made from trusted values on the trusted side."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rlaif.config import SandboxConfig
from rlaif.sandbox import compare
from rlaif.sandbox.child import ChildProcess, Ended, Exit, Family, cause
from rlaif.sandbox.inside import codec, protocol
from rlaif.sandbox.loop import Task
from rlaif.sandbox.lower import Question, Step
from rlaif.sandbox.zygotes import Limits, Zygote
from rlaif.types import Grade, Problem, TestReport, TestResult

MAX_FILE = 16 * 2**20
"""Largest file a program may write, its standard output included, in bytes."""
POLICY_FAILURES = frozenset({"syntax_error", "missing_entry_point", "load_error", "tampering"})
"""Failures for which there is nothing to score, and so is any other that comes before the module is loaded: it never got as far as
having an entry point. The rest ran against their tests and lost the tests they did not finish."""
BLOCKED, MOST = 3, 20
"""How long a program may sleep or block, and how long it may take on however busy a machine, in CPU limits."""


IDLE_S = 0.05
"""How long an answer that no longer counts may take."""


class NeedsTestChild(Exception):
    """An answer that the trusted side cannot judge from its tree: the whole program is run again with the test child."""


class NeedsOneByOne(Exception):
    """It ended over a question that would not have been asked, had the answer before it been heard first: the whole program is run again."""


class Run:
    """One attempt at one program on one zygote.

    A lowered program is sent as many questions at once as tell nothing of each other's answers, so that nobody waits for anybody between them. What a
    wrong answer makes idle is evaluated all the same, and must not count: if that takes long or ends the program, NeedsOneByOne is raised.
    """

    def __init__(
        self,
        zygote: Zygote,
        config: SandboxConfig,
        grade: Grade,
        problem: Problem,
        code: str,
        steps: tuple[Step, ...],
        breaks: frozenset[int] | None = None,
    ) -> None:
        """`breaks`: questions, counted through, before which all answers must be there (lower.breaks). None: one by one."""
        self.zygote, self.config, self.grade = zygote, config, grade
        self.problem, self.code, self.steps = problem, code, steps
        self.exact = problem.imported
        self.family = self._family()
        self.limits = Limits(config.timeout_s, config.memory_bytes, MAX_FILE)
        self.children: list[ChildProcess] = []
        self.results: list[TestResult] = []
        self.stdout = ""
        self.memory = False
        self.loading = False
        self.breaks, self.idled = breaks, False
        self.waiting: deque[dict[int, list[str]]] = deque()
        """Questions that are still to be sent, by step; each dict goes at once."""
        self.asked: deque[int] = deque()
        """The step of each question that was sent and not yet answered."""
        self.numbers: Iterator[int] = iter(())
        self.said_bye = False
        lowered = sum(step.questions is not None for step in steps)
        stdio = any(step.test.form == "stdio" for step in steps)
        self.path = "none" if stdio or not steps else "lowered" if lowered == len(steps) else "opaque" if not lowered else "mixed"

    def _family(self) -> Family:
        return Family(BLOCKED * self.config.timeout_s, MOST * self.config.timeout_s)

    def children_for(self, tester: bool) -> tuple[ChildProcess, ChildProcess | None]:
        """A solution child and, if asked for, a test child at its channel. Raises ZygoteGone or SandboxUnavailable."""
        hatched, started = self.zygote.take(self.limits, tester)
        solution = ChildProcess(self.zygote, started, hatched.status, hatched.channel, self.family)
        self.children.append(solution)
        if hatched.tester is None:
            return solution, None
        self.children.append(ChildProcess(self.zygote, started, *hatched.tester, self.family))
        return solution, self.children[-1]

    # -- the whole program ---------------------------------------------------------------------------------------------
    def report(self) -> Task[TestReport]:
        """Run it. Raises ZygoteGone or SpawnFailed (retry), NeedsTestChild (again, opaque), NeedsOneByOne (again, step by step)."""
        failure: str | None = None
        message = ""
        try:
            if any(step.test.form == "stdio" for step in self.steps):
                yield from self._scripts()
            else:
                yield from self._module()
        except Ended as end:
            if self.idled:
                raise NeedsOneByOne from None
            failure, message = end.failure, end.text
            yield from self._bury()
        finally:
            for child in self.children:
                child.close()
        if failure is None and self.memory:
            failure, message = "memory", "it ran out of memory in a test"
        unfinished = [TestResult(step.test, False, None, f"not reached: {message}") for step in self.steps[len(self.results) :]]
        if failure == "tampering":  # nothing that a program said counts once it has lied about the protocol
            self.results = [replace(result, passed=False, error="tampering") for result in self.results]
        outcome = "policy_failure" if failure in POLICY_FAILURES or (failure and self.loading) else "scored"
        if unfinished and outcome == "scored":
            unfinished[0] = replace(unfinished[0], error=message)
        cpu_s = sum(child.exit.cpu_s for child in self.children[: len(self.steps) if self.path == "none" else 1] if child.exit)
        return TestReport(outcome, (*self.results, *unfinished), failure, message, self.stdout, cpu_s, self.grade, self.path)  # type: ignore[arg-type]

    def _bury(self) -> Task[None]:
        for child in self.children:
            if child.exit is None:
                yield from child.ended(kill=True)

    # -- functions and classes -----------------------------------------------------------------------------------------
    def _module(self) -> Task[None]:
        opaque = any(step.questions is None and not step.error for step in self.steps)
        solution, tester = self.children_for(opaque)
        entry = self.problem.entry_point
        self.loading = True
        job = {"preamble": self.problem.preamble, "code": self.code, "entry": entry}
        if tester is not None:
            self.breaks = None  # the test child asks in between
        self._line_up()
        try:
            if self.breaks is None or not self.waiting:
                (number,) = yield from solution.put(job)
            else:
                number, first = yield from solution.put(job, self._next_group(), last=self.said_bye)
                self.numbers = itertools.count(first)
            self.zygote.prepare(self.limits, opaque)  # it forks the next program's children while this one's work
            loaded = yield from solution.hear(number)
        except protocol.Oversize:
            raise Ended("syntax_error", "the code is too large") from None
        if "ok" not in loaded:
            bad = loaded.get("bad")
            known = ("syntax_error", "missing_entry_point", "load_error", "memory", "early_exit")
            raise Ended(bad if bad in known else "tampering", str(loaded.get("text", ""))[: protocol.MAX_TEXT])
        self.loading = briefed = False
        for index, step in enumerate(self.steps):
            if step.error:
                self.results.append(TestResult(step.test, False, None, f"broken test: {step.error}"))
            elif step.questions is not None:
                self.results.append((yield from self._lowered(solution, index, step, step.questions)))
            else:
                assert tester is not None
                if not briefed:
                    briefed = True
                    is_class = self.problem.signature.lstrip().startswith(("class ", "@"))
                    yield from tester.ask({"preamble": self.problem.preamble, "entry": entry, "class": is_class})
                self.results.append((yield from self._opaque(tester, solution, step)))
        if tester is not None:
            yield from tester.say_bye()
            yield from solution.say_bye()
            yield from tester.bye(True)
            self.said_bye = True
        self.stdout = yield from solution.bye(self.said_bye)

    def _line_up(self) -> None:
        """Fill `waiting`."""
        places = itertools.count()
        for index, step in enumerate(self.steps):
            for question in step.questions or ():
                place = next(places)
                if self.breaks is None or place in self.breaks or not self.waiting:
                    self.waiting.append({})
                self.waiting[-1].setdefault(index, []).append(question.source)

    def _next_group(self) -> dict[str, Any]:
        """The next questions to send; they count as asked. If they are the last and nobody else asks, BYE is to go along."""
        group = self.waiting.popleft()
        self.asked.extend(index for index, sources in group.items() for _ in sources)
        self.said_bye = len(self.children) == 1 and not self.waiting
        return {"op": "evals", "x": list(group.values())}

    def _answer(self, solution: ChildProcess, patience_s: float | None = None) -> Task[Any]:
        """The answer to the next question, which is sent now if it was not before. None if it takes longer than `patience_s`."""
        if not self.asked:
            group = self._next_group()
            (first,) = yield from solution.put(group, last=self.said_bye)
            self.numbers = itertools.count(first)
        self.asked.popleft()
        return (yield from solution.hear(next(self.numbers), patience_s))

    def _lowered(self, solution: ChildProcess, index: int, step: Step, questions: tuple[Question, ...]) -> Task[TestResult]:
        tree: Any = None
        for question in questions:
            reply = yield from self._answer(solution)
            if "v" not in reply:
                self._forget(index)
                return TestResult(step.test, False, None, self._error(reply))
            tree = reply["v"]
            if not self._holds(question, tree):
                shown = compare.show(tree)
                yield from self._idle(solution, index)
                return TestResult(step.test, False, shown, None if len(questions) == 1 else f"{question.source[:200]} gave {shown}")
        return TestResult(step.test, True, compare.show(tree), None)

    def _idle(self, solution: ChildProcess, index: int) -> Task[None]:
        """Hear the rest of what was asked for a test that has failed."""
        while self.asked and self.asked[0] == index:
            self.idled = True
            reply = yield from self._answer(solution, IDLE_S)
            if reply is None:
                raise NeedsOneByOne
            if "v" not in reply:
                break
        self._forget(index)

    def _forget(self, index: int) -> None:
        """A test has failed: no more is asked for it, and an error has ended what was."""
        while self.asked and self.asked[0] == index:
            self.asked.popleft()
        for group in self.waiting:
            group.pop(index, None)
        self.waiting = deque(group for group in self.waiting if group)

    def _holds(self, question: Question, tree: Any) -> bool:
        """The verdict on one answer."""
        match question.relation:
            case "eq":
                if compare.equal(tree, question.expected, self.exact):
                    return True
                if self.exact and compare.is_foreign(tree):
                    raise NeedsTestChild
                return False
            case "is":
                return tree is question.expected
            case "near":
                if type(tree) not in (int, float):
                    if type(tree) is dict:  # a fraction, or an object of its own
                        raise NeedsTestChild
                    return False
                try:
                    return abs(tree - question.expected) < question.tolerance
                except OverflowError:
                    return False
            case "true" | "false":
                try:
                    return compare.truth(tree) is (question.relation == "true")
                except (ValueError, codec.Refused):
                    raise NeedsTestChild from None

    def _error(self, reply: dict[str, Any]) -> str:
        error = reply.get("e")
        if type(error) is not list or len(error) != 2 or not all(type(part) is str for part in error):
            raise Ended("tampering", "it sent a malformed answer")
        if error[0] == "TooLarge":
            raise Ended("too_large", error[1][: protocol.MAX_TEXT])
        if error[0] == "MemoryError":
            self.memory = True
        return error[1][: protocol.MAX_TEXT]

    def _opaque(self, tester: ChildProcess, solution: ChildProcess, step: Step) -> Task[TestResult]:
        test = step.test
        try:
            reply = yield from tester.ask({"form": test.form, "input": test.input})
        except Ended as end:
            # The test child's own end is the solution's doing or the test's; the solution's death explains it better.
            raise Ended("timeout" if end.failure == "timeout" else "early_exit", f"the test ended: {end.text}") from None
        match reply.get("end"):
            case "gone":
                exit_: Exit = yield from solution.ended(kill=True)
                raise cause(exit_)
            case "tampering":
                raise Ended("tampering", str(reply.get("text"))[: protocol.MAX_TEXT])
        if "e" in reply:
            return TestResult(test, False, None, self._error_of_test(reply["e"]))
        if test.form == "call":
            tree = reply.get("v")
            return TestResult(test, compare.equal(tree, step.expected, self.exact), compare.show(tree), None)
        return TestResult(test, reply.get("passed") is True, None, None)

    def _error_of_test(self, error: list[str]) -> str:
        if error[0] == "MemoryError" or error[1].startswith("MemoryError"):
            self.memory = True
        return error[1]

    # -- whole programs on standard input and output -------------------------------------------------------------------
    def _scripts(self) -> Task[None]:
        for step in self.steps:
            if step.error or step.test.form != "stdio":
                self.results.append(TestResult(step.test, False, None, step.error or "mixes standard input with calls"))
                continue
            self.family = self._family()
            self.results.append((yield from self._script(step)))

    def _script(self, step: Step) -> Task[TestResult]:
        test = step.test
        with _file(test.input) as stdin, _file("") as stdout, _file(json.dumps([self.problem.preamble, self.code])) as code:
            fds = {protocol.HAS_CHANNEL: code.fileno(), protocol.HAS_STDIN: stdin.fileno(), protocol.HAS_STDOUT: stdout.fileno()}
            status, started = self.zygote.spawn(protocol.KIND_SCRIPT, fds, self.limits)
            child = ChildProcess(self.zygote, started, status, None, self.family)
            self.children.append(child)
            exit_ = yield from child.ended()
            output = os.pread(stdout.fileno(), MAX_FILE, 0).decode("utf-8", "replace")
        if not self.stdout:
            self.stdout = output[:16384]
        if exit_.status == 98 << 8:
            raise Ended("syntax_error", "the program does not compile")
        cpu_s = exit_.cpu_s
        if exit_.status != 0:
            error = (
                "MemoryError" if exit_.status == 99 << 8 else f"exit status {exit_.status >> 8}" if exit_.status & 0x7F == 0 else cause(exit_).text
            )
            if exit_.reason == protocol.REASON_ASKED:
                error = "it ran out of wall time"
            self.memory = self.memory or error == "MemoryError"
            return TestResult(test, False, output[:300], error, cpu_s)
        return TestResult(test, same_text(output, test.expected), output[:300], None, cpu_s)


def same_text(output: str, expected: str) -> bool:
    """Equal but for white space at the ends of lines and of the whole (the convention of programming contests)."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.strip().split("\n")]

    return lines(output) == lines(expected)


def _file(text: str) -> Any:
    """An unnamed file holding the text, at its beginning. In memory where the system can."""
    stream: Any = os.fdopen(os.memfd_create("program"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()  # noqa: SIM115
    stream.write(text.encode("utf-8", "surrogatepass"))
    stream.flush()
    os.lseek(stream.fileno(), 0, os.SEEK_SET)
    return stream
