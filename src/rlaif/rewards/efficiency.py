"""CPU time on growing inputs against the reference solution, as the sandbox's trusted side sees it.

The tests of a problem are small, so their inputs are grown: collections to thousands of elements, integers up a ladder of primes. A shape
of input counts only as far as the reference itself answers it, without error and in reasonable time. Without a reference, without inputs that
can be grown, or where neither program takes a time worth measuring, there is no efficiency at all (None), not a good one.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from rlaif.rewards.growth import grown_calls
from rlaif.types import Problem, TestCase, TestReport

FREE_RATIO, HOPELESS_RATIO = 2.0, 20.0
"""Times the reference's CPU time at which efficiency starts to fall below 1, and at which it is 0 (linear in the logarithm between)."""
NOISE_S = 0.004
"""Added to the reference's time: what two runs of one program differ by."""
MEANINGFUL_S = 0.03
"""CPU time below which a program is fast whatever the ratio."""
REFERENCE_MAX_S = 0.01
"""A shape is grown no further once the reference takes this long."""
_REMEMBERED, _PLANS = 4096, 512
"""Results of programs, and plans (each some hundred kilobytes of grown inputs), that are kept."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One grown call and the reference's CPU time on it, start-up subtracted."""

    call: str
    reference_s: float


def efficiency_of(code_s: float, reference_s: float) -> float:
    """1 up to twice the reference's time, 0 from twenty times it, linear in the logarithm between. Both in CPU seconds."""
    if code_s < MEANINGFUL_S:
        return 1.0
    ratio = code_s / (reference_s + NOISE_S)
    return min(1.0, max(0.0, 1.0 - math.log(max(ratio, FREE_RATIO) / FREE_RATIO) / math.log(HOPELESS_RATIO / FREE_RATIO)))


class EfficiencyMeter:
    """Remembers each problem's ladder and each program's result; asks the sandbox otherwise. Thread-safe."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        self._plans: OrderedDict[tuple[str, str], tuple[float, list[list[Rung]]]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], float | None] = OrderedDict()
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def efficiency(self, problem: Problem, code: str) -> float | None:
        """In [0, 1]; the worst over the shapes of input. Only ask for programs that pass their tests."""
        key = (problem.id, _digest(code))
        with self._lock:
            if key in self._known:
                return self._known[key]
        found = self._measure(problem, code)
        with self._lock:
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _measure(self, problem: Problem, code: str) -> float | None:
        if problem.reference is None or problem.entry_point is None:
            return None
        start_s, shapes = self._plan(problem)
        worst: float | None = None
        for rungs in shapes:
            found = self._climb(problem, code, start_s, rungs)
            if found is not None:
                worst = found if worst is None else min(worst, found)
            if worst == 0.0:
                break
        return worst

    def _climb(self, problem: Problem, code: str, start_s: float, rungs: list[Rung]) -> float | None:
        """Efficiency on the largest rung the program gets to; stops at the first that shows it to be slow."""
        best: float | None = None
        for rung in rungs:
            code_s = self._time(problem, code, rung.call)
            if code_s is None:
                break  # it fails there for another reason than time (recursion depth, say): tests judge that, not this
            code_s = max(0.0, code_s - start_s)
            if max(code_s, rung.reference_s) < MEANINGFUL_S:
                continue
            best = efficiency_of(code_s, rung.reference_s)
            if 0.0 < best < 1.0:  # look twice before blaming
                again = self._time(problem, code, rung.call)
                code_s = min(code_s, math.inf if again is None else max(0.0, again - start_s))
                best = efficiency_of(code_s, rung.reference_s)
            if best < 0.3:
                break
        return best

    def _plan(self, problem: Problem) -> tuple[float, list[list[Rung]]]:
        """(start-up CPU seconds, rungs per shape) for a problem, measured once on its reference."""
        key = (problem.id, _digest(problem.reference or ""))
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # one thread plans a problem, the others wait for its plan
            plan = self._plans.get(key) or self._new_plan(problem)
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) > _PLANS:  # a server meets problems without end
                self._locks.pop(self._plans.popitem(last=False)[0], None)
        return plan

    def _new_plan(self, problem: Problem) -> tuple[float, list[list[Rung]]]:
        reference = problem.reference or ""
        small = next((test.input for test in problem.tests if test.form == "call"), None)
        if small is None:
            return 0.0, []
        times = [seconds for _ in range(2) if (seconds := self._time(problem, reference, small)) is not None]
        if not times:
            return 0.0, []
        start_s = min(times)
        shapes: list[list[Rung]] = []
        for calls in grown_calls(problem):
            rungs: list[Rung] = []
            for call in calls:
                seconds = self._time(problem, reference, call)
                if seconds is None or seconds == math.inf:
                    break
                rungs.append(Rung(call, max(0.0, seconds - start_s)))
                if rungs[-1].reference_s > REFERENCE_MAX_S:
                    break
            if rungs:
                shapes.append(rungs)
        return start_s, shapes

    def _time(self, problem: Problem, code: str, call: str) -> float | None:
        """CPU seconds of one call; infinite if it ran out of time or memory; None if it failed otherwise or nobody can say."""
        probe = Problem(problem.id, problem.prompt, (TestCase("graded", call, "None"),), problem.entry_point, preamble=problem.preamble)
        report: TestReport = self.sandbox.run(probe, code)
        if report.failure == "memory" or (report.failure == "timeout" and report.cpu_s > 1.0):
            return math.inf
        if report.failure == "timeout":
            return None  # the wall clock's backstop on a busy machine: it hardly ran
        if report.outcome != "scored" or not report.results or report.results[0].error:
            return None
        return report.cpu_s


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
