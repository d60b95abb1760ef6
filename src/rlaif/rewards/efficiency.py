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
WORST_NEEDED = 0.3
"""Efficiency below which no further look is taken: well inside the band of slow programs."""
_REMEMBERED, _PLANS = 4096, 512
"""Results of programs, and plans (each some hundred kilobytes of grown inputs), that are kept."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One grown call, the CPU time of a program that does nothing with it (starting, handing over the input), and what the reference adds."""

    call: str
    start_s: float
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
        self._plans: OrderedDict[tuple[str, str], list[list[Rung]]] = OrderedDict()
        self._tests_s: OrderedDict[tuple[str, str], float | None] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], float | None] = OrderedDict()
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def efficiency(self, problem: Problem, code: str, tests_s: float = 0.0) -> float | None:
        """In [0, 1]; the worst over the shapes of input. Only ask for programs that pass their tests.

        tests_s: CPU seconds that the program took for its graded tests; where that is long for tests so small, it counts too.
        """
        key = (problem.id, _digest(code))
        with self._lock:
            if key in self._known:
                return self._known[key]
        found = self._measure(problem, code, tests_s)
        with self._lock:
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _measure(self, problem: Problem, code: str, tests_s: float) -> float | None:
        if problem.reference is None or problem.entry_point is None:
            return None
        worst = self._on_the_tests(problem, code, tests_s)
        for rungs in self._plan(problem):
            if worst is not None and worst < WORST_NEEDED:
                break
            found = self._climb(problem, code, rungs)
            if found is not None:
                worst = found if worst is None else min(worst, found)
        return worst

    def _on_the_tests(self, problem: Problem, code: str, tests_s: float) -> float | None:
        """Efficiency on the graded tests themselves; None where the program was quick with them."""
        if tests_s < 2 * MEANINGFUL_S:
            return None
        key = (problem.id, _digest(problem.reference or ""))
        if key not in self._tests_s:
            report: TestReport = self.sandbox.run(problem, problem.reference)
            with self._lock:
                self._tests_s[key] = report.cpu_s if report.all_passed else None
                while len(self._tests_s) > _REMEMBERED:
                    self._tests_s.popitem(last=False)
        reference_s = self._tests_s.get(key)
        return None if reference_s is None else efficiency_of(tests_s, reference_s)

    def _climb(self, problem: Problem, code: str, rungs: list[Rung]) -> float | None:
        """Efficiency on the largest rung the program gets to; stops at the first that shows it to be slow."""
        best: float | None = None
        for rung in rungs:
            code_s = self._time(problem, code, rung.call)
            if code_s is None:
                break  # it fails there for another reason than time (recursion depth, say): tests judge that, not this
            code_s = max(0.0, code_s - rung.start_s)
            if max(code_s, rung.reference_s) < MEANINGFUL_S:
                continue
            best = efficiency_of(code_s, rung.reference_s)
            if 0.0 < best < 1.0:  # look twice before blaming
                again = self._time(problem, code, rung.call)
                code_s = min(code_s, math.inf if again is None else max(0.0, again - rung.start_s))
                best = efficiency_of(code_s, rung.reference_s)
            if best < WORST_NEEDED:
                break
        return best

    def _plan(self, problem: Problem) -> list[list[Rung]]:
        """Rungs per shape of input for a problem, measured once on its reference."""
        key = (problem.id, _digest(problem.reference or ""))
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # one thread plans a problem, the others wait for its plan
            plan = self._plans.get(key)
            if plan is None:
                plan = self._new_plan(problem)
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) > _PLANS:  # a server meets problems without end
                self._locks.pop(self._plans.popitem(last=False)[0], None)
        return plan

    def _new_plan(self, problem: Problem) -> list[list[Rung]]:
        reference, nothing = problem.reference or "", f"def {problem.entry_point}(*arguments):\n    return None\n"
        shapes: list[list[Rung]] = []
        for calls in grown_calls(problem):
            rungs: list[Rung] = []
            for call in calls:
                seconds = self._time(problem, reference, call)
                if seconds is None or seconds == math.inf:
                    break
                # A list of thousands takes longer to hand over than to sort, so what a program does is what it takes more than this.
                start_s = self._time(problem, nothing, call) or 0.0
                rungs.append(Rung(call, start_s, max(0.0, seconds - start_s)))
                if rungs[-1].reference_s > REFERENCE_MAX_S:
                    break
            if rungs:
                shapes.append(rungs)
        return shapes

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
