"""`Sandbox`: what the rest of the package sees. Retries what was nobody's fault, and says how strong the isolation is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from rlaif.config import SandboxConfig
from rlaif.errors import SandboxUnavailable
from rlaif.sandbox.child import Ended, SpawnFailed
from rlaif.sandbox.inside import protocol
from rlaif.sandbox.loop import Task, Wait, run_all, run_one
from rlaif.sandbox.lower import breaks, plan
from rlaif.sandbox.programs import NeedsOneByOne, NeedsTestChild, Run
from rlaif.sandbox.zygotes import Zygote, ZygoteGone
from rlaif.types import Grade, Problem, Role, TestCase, TestReport, TestResult

_NUMPY = re.compile(r"\bnumpy\b")
SHARED_ATTEMPTS, LONE_ATTEMPTS = 3, 4
"""Tries on the common zygote, then on one that runs nothing else."""
MAX_SPARES = 4
"""Processes kept forked in advance on each zygote. With eight, a zygote forks for so long at a time that nobody buries the dead meanwhile."""
STRONG = ("rlimits", "session", "no_new_privs", "non_dumpable", "seccomp", "landlock")


class Job(NamedTuple):
    """One program for `run_many`."""

    problem: Problem
    code: str
    roles: tuple[Role, ...] = ("graded",)


def grade_of(layers: dict[str, bool]) -> Grade:
    """The grade that these layers amount to."""
    if all(layers.get(name) for name in STRONG):
        return "strongest" if layers.get("bubblewrap") else "strong"
    if layers.get("sandbox_exec"):
        return "medium"
    return "base" if layers.get("rlimits") else "none"


class Sandbox:
    """Runs programs that nobody has read. A context manager; `run` and `run_many` may be called from several threads."""

    def __init__(self, config: SandboxConfig | None = None, *, _without: frozenset[str] = frozenset(), _lowering: bool = True) -> None:
        """Raises SandboxUnavailable when no isolation can be had and `unsafe_exec` is off. `_without` switches layers off (tests)."""
        self.config = config or SandboxConfig()  # pyright: ignore[reportCallIssue]  (pydantic's Field defaults)
        self._without = _without
        self._lowering = _lowering
        spares = min(2 * self.config.workers, MAX_SPARES)
        self._common = Zygote(without=_without, spares=spares)
        self._numpy = Zygote(numpy=True, without=_without, spares=spares)
        try:
            self._hello: dict[str, Any] = self._common.start()
        except SandboxUnavailable:
            self.close()
            raise
        self.grade: Grade = grade_of(self._hello["layers"])
        if self.grade == "none" and not self.config.unsafe_exec:
            self.close()
            raise SandboxUnavailable("No isolation can be had here", "", "pass --unsafe-exec to run code all the same")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the zygotes; every program dies with them."""
        self._common.close()
        self._numpy.close()

    def describe(self) -> dict[str, Any]:
        """The grade and the layers reached, as probed at start."""
        return {
            "grade": self.grade,
            "layers": dict(self._hello["layers"]),
            "python": self._hello["python"],
            "timeout_s": self.config.timeout_s,
            "memory_bytes": self.config.memory_bytes,
            "workers": self.config.workers,
            "notes": list(self._hello.get("notes", ())),
        }

    def run(self, problem: Problem, code: str, roles: tuple[Role, ...] = ("graded",)) -> TestReport:
        """Run the code against the problem's tests with these roles."""
        return run_one(self._program(Job(problem, code, tuple(roles))))

    def run_many(self, jobs: Iterable[Job]) -> Iterator[TestReport]:
        """The reports in the order of the jobs, `workers` at once; reads the jobs as it goes and holds only a few."""
        return run_all(jobs, self._program, self.config.workers)

    def evaluate(self, code: str, source: str, preamble: str = "") -> TestResult:
        """Run one expression typed by a user in the solution's own process; `actual` is its repr, or `error` says why not."""
        test = TestCase("shown", source)
        try:
            return run_one(self._evaluate(test, code, preamble))
        except Ended as end:
            return TestResult(test, False, None, f"{end.failure}: {end.text}")
        except (ZygoteGone, SpawnFailed) as error:
            return TestResult(test, False, None, f"sandbox: {error}")

    def _evaluate(self, test: TestCase, code: str, preamble: str) -> Task[TestResult]:
        problem = Problem("evaluate", "", preamble=preamble)
        run = Run(self._zygote(code, preamble, test.input), self.config, self.grade, problem, code, ())
        try:
            child, _ = run.children_for(False)
            loaded = yield from child.ask({"preamble": preamble, "code": code, "entry": None})
            if "ok" not in loaded:
                return TestResult(test, False, None, str(loaded.get("text", ""))[: protocol.MAX_TEXT])
            reply = yield from child.ask({"op": "show", "x": test.input})
            if "v" in reply and type(reply["v"]) is str:
                return TestResult(test, True, reply["v"][: protocol.MAX_TEXT])
            return TestResult(test, False, None, str((reply.get("e") or ["", "no answer"])[-1])[: protocol.MAX_TEXT])
        finally:
            for child in run.children:
                child.close()

    # -- one program ---------------------------------------------------------------------------------------------------
    def _zygote(self, *texts: str) -> Zygote:
        return self._numpy if any("numpy" in text and _NUMPY.search(text) for text in texts) else self._common

    def _program(self, job: Job) -> Task[TestReport]:
        problem, code, roles = job
        steps = plan(problem, tuple(roles), self._lowering)
        zygote = self._zygote(code, problem.preamble, *(step.test.input for step in steps if step.questions is None))
        trouble = ""
        fork_failed = False
        for attempt in range(SHARED_ATTEMPTS + LONE_ATTEMPTS):
            if attempt >= SHARED_ATTEMPTS:
                zygote = Zygote(numpy=zygote.numpy, without=self._without)
            try:
                return (yield from self._attempt(zygote, problem, code, roles))
            except (ZygoteGone, SandboxUnavailable) as error:
                trouble = str(error)
            except SpawnFailed as error:
                trouble, fork_failed = str(error), True
                yield Wait((), 0.05 * 2**attempt)
            finally:
                if attempt >= SHARED_ATTEMPTS:
                    zygote.close()
        if not fork_failed and (yield from self._harmless_survives()):
            # It ends every zygote that runs it, and a harmless program does not: that is the program's doing.
            results = tuple(TestResult(step.test, False, None, "tampering") for step in steps)
            return TestReport("policy_failure", results, "tampering", f"it brings the sandbox down: {trouble}", grade=self.grade)
        return TestReport("infra_failure", (), trouble or "the sandbox broke", grade=self.grade)

    def _harmless_survives(self) -> Task[bool]:
        zygote = Zygote(without=self._without)
        test = TestCase("graded", "f()", "1")
        try:
            report = yield from self._attempt(zygote, Problem("canary", "", (test,), "f"), "def f(): return 1", ("graded",))
            return report.all_passed
        except (ZygoteGone, SpawnFailed, SandboxUnavailable):
            return False
        finally:
            zygote.close()

    def _attempt(self, zygote: Zygote, problem: Problem, code: str, roles: tuple[Role, ...]) -> Task[TestReport]:
        lowering, apart = self._lowering, breaks(problem, tuple(roles))
        while True:
            steps = plan(problem, tuple(roles), lowering)
            try:
                return (yield from Run(zygote, self.config, self.grade, problem, code, steps, apart).report())
            except NeedsTestChild:
                lowering = False
            except NeedsOneByOne:
                apart = None
