"""The engine: order, what is asked of whom, streaming; on fakes, then end to end on the real sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from rlaif.judge import JudgeItem, sanitise
from rlaif.judge.protocol import refused_report
from rlaif.judge.sanitise import Refusal
from rlaif.rewards import RewardEngine
from rlaif.rewards.efficiency import EfficiencyMeter, efficiency_of
from rlaif.rewards.growth import grown_calls
from rlaif.sandbox import Sandbox
from rlaif.types import JudgeReport, Problem, TestCase, TestReport, TestResult


def problem(name: str, tests: list[tuple[str, str]], reference: str | None = None) -> Problem:
    return Problem(name, f"Write {name}.", tuple(TestCase("graded", *test) for test in tests), name, reference=reference)


ADD = problem("add", [("add(1, 2)", "3"), ("add(0, 5)", "5"), ("add(-1, 1)", "0")], "def add(a, b):\n    return a + b\n")
UNTESTED = Problem("free", "Write free.", (), "free", signature="def free(b):")


class FakeSandbox:
    """Passes what contains `a + b`; notes how many jobs were pulled before each answer."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def run_many(self, jobs) -> Iterator[TestReport]:
        for job in jobs:
            self.codes.append(job.code)
            assert job.roles == ("graded",)
            if "def" not in job.code:
                yield TestReport("policy_failure", failure="missing_entry_point")
            else:
                yield TestReport("scored", tuple(TestResult(test, "a + b" in job.code) for test in job.problem.tests_of("graded")))


class ScriptedJudge:
    """Believes in what contains `b`; refuses as the real ones do."""

    name = "scripted"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]:
        reports = []
        for item in items:
            self.asked.append(item.code)
            shown = sanitise(item.problem, item.code)
            if isinstance(shown, Refusal):
                reports.append(refused_report(shown, self.name))
            else:
                reports.append(JudgeReport(0.9 if "+ b" in shown.code else 0.2, {"correctness": 0.5}, judge=self.name))
        return reports


GOOD, BAD, NOTHING = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n", "x = 1\n"


def test_order_and_who_is_asked() -> None:
    judge = ScriptedJudge()
    engine = RewardEngine(FakeSandbox(), judge, "hybrid", efficiency=False)
    good, bad, nothing, free = engine.score([ADD, ADD, ADD, UNTESTED], [GOOD, BAD, NOTHING, "def free(b):\n    return 1 + b\n"])
    assert good.reward > 0.6 > 0.3 > bad.reward > 0.1 >= nothing.reward
    assert nothing.outcome == "policy_failure" and nothing.judge is None
    assert free.tests is None and free.reward == pytest.approx(0.1 + 0.75 * 0.9) and not free.verified
    assert NOTHING not in judge.asked  # the sandbox settled it; a judgement would be wasted


def test_execution_mode_asks_no_judge_and_ai_mode_runs_nothing() -> None:
    judge, sandbox = ScriptedJudge(), FakeSandbox()
    assert RewardEngine(sandbox, judge, "execution", efficiency=False).score([ADD], [GOOD])[0].reward > 0.6
    assert not judge.asked
    feedback = RewardEngine(None, judge, "ai").score([ADD, ADD], [GOOD, NOTHING])
    assert feedback[0].reward == pytest.approx(0.1 + 0.75 * 0.9) and feedback[0].tests is None
    assert feedback[1].reward <= 0.1 and feedback[1].outcome == "policy_failure"


def test_the_learners_quality_is_used_in_place_of_ours() -> None:
    scores = [RewardEngine(FakeSandbox(), None, "hybrid", lambda code, q=q: q, efficiency=False).score([ADD], [GOOD])[0] for q in (0.2, 0.9)]
    assert scores[0].reward == pytest.approx(0.3 + 0.29 * 0.2) and scores[1].reward == pytest.approx(0.6 + 0.4 * 0.9)


def test_streaming_takes_only_as_much_as_it_needs() -> None:
    pulled = 0

    def pairs() -> Iterator[tuple[Problem, str]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield ADD, f"{GOOD}# {pulled}\n"

    stream = RewardEngine(FakeSandbox(), None, "execution", efficiency=False).score_stream(pairs())
    assert [next(stream).reward > 0.6 for _ in range(100)] == [True] * 100
    assert pulled == 128


def test_efficiency_scale() -> None:
    assert efficiency_of(0.01, 0.0) == 1.0  # too short to matter
    assert efficiency_of(0.2, 0.1) == 1.0 and efficiency_of(3.0, 0.1) == 0.0
    assert 0.0 < efficiency_of(0.7, 0.1) < efficiency_of(0.3, 0.1) < 1.0


def test_growth_keeps_the_kind_of_input() -> None:
    calls = grown_calls(problem("f", [("f([3, 1], 'ab', 2)", "0")]))
    assert len(calls) == 2
    numbers, text, count = eval(calls[0][0], {"f": lambda *arguments: arguments})
    assert len(numbers) == len(set(numbers)) == 300 and len(text) == 1000 and count == 2 and numbers != sorted(numbers)
    assert eval(calls[1][-1], {"f": lambda *arguments: arguments})[2] > 10**6
    ordered = grown_calls(problem("f", [("f([1, 3])", "0"), ("f([2, 2, 9])", "0")]))
    values = eval(ordered[0][0], {"f": lambda x: x})
    assert values == sorted(values)  # binary search must be given what it asks for
    assert grown_calls(problem("f", [("len(f(1))", "0")])) == []
    differing, repeated = (eval(shape[0], {"f": lambda *given: given}) for shape in grown_calls(problem("f", [("f(['a', 'b'], ['b'])", "0")]))[:2])
    assert len(set(differing[0])) == 300 and set(repeated[0]) == {"a", "b"}  # single letters stand for anything, or for themselves
    (grown,) = (eval(shape[0], {"f": dict}) for shape in grown_calls(problem("f", [("f({'a': 1, 'b': 1})", "0")])))
    assert len(grown) == len(set(grown.values())) == 300


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


SLOW = [
    (
        problem(
            "fib",
            [("fib(10)", "55"), ("fib(1)", "1")],
            "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
        ),
        "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
    ),
    (
        problem("dup", [("dup([1, 2, 3, 1])", "True"), ("dup([3, 2])", "False")], "def dup(x):\n    return len(set(x)) < len(x)\n"),
        "def dup(x):\n    for i in range(len(x)):\n        for j in range(i + 1, len(x)):\n            if x[i] == x[j]:\n"
        "                return True\n    return False\n",
    ),
]


def test_bands_end_to_end_on_the_real_sandbox(sandbox: Sandbox) -> None:
    engine = RewardEngine(sandbox, ScriptedJudge(), "hybrid")
    problems, codes, bands = [], [], []
    for task, slow in SLOW:
        wrong = slow.replace("n - 2", "n - 1").replace("x[i] == x[j]", "x[i] > x[j]")
        for code, band in ((task.reference, "good"), (slow, "okay"), (wrong, "poor"), (slow.replace(":", "", 1), "poor"), ("def g(): pass", "poor")):
            problems.append(task)
            codes.append(code)
            bands.append(band)
    feedback = engine.score(problems, codes)
    assert [item.band for item in feedback] == bands, [(item.reward, item.reasons) for item in feedback]
    assert all("slower than the reference" in " ".join(item.reasons) for item in feedback[1::5])
    assert any("gave" in reason and "expected" in reason for reason in feedback[2].reasons)


def test_efficiency_is_absent_where_nothing_can_be_measured(sandbox: Sandbox) -> None:
    meter = EfficiencyMeter(sandbox)
    assert meter.efficiency(ADD, GOOD) is None
    assert meter.efficiency(problem("add", [("add(1, 2)", "3")]), GOOD) is None


def test_waste_that_does_not_depend_on_the_input_counts(sandbox: Sandbox) -> None:
    """Nothing here can be grown, but a second of counting for three small sums is slow."""
    shy = problem("add", [("add(1.5, 2)", "3.5"), ("add(0.5, 5)", "5.5")], ADD.reference)
    code = "def add(a, b):\n    for _ in range(8_000_000):\n        pass\n    return a + b\n"
    wasteful, plain = RewardEngine(sandbox, None, "hybrid").score([shy, shy], [code, GOOD])
    assert wasteful.band == "okay" and plain.band == "good" and wasteful.efficiency is not None


class CountingSandbox:
    """Each element of the input costs as much to read as twenty times adding it up; only what defines `sum` adds them up."""

    READ_S, ADD_S = 2e-6, 1e-7

    def run(self, problem: Problem, code: str) -> TestReport:
        test = problem.tests[0]
        elements = test.input.count(",") + 1
        return TestReport("scored", (TestResult(test, True, "0"),), cpu_s=elements * (self.READ_S + self.ADD_S * ("sum" in code)))


def test_handing_over_a_large_input_is_nobodys_slowness() -> None:
    """Twenty thousand elements take longer to read than to add up: the ladder goes on past that."""
    task = problem("total", [("total([1, 2, 3])", "6"), ("total([])", "0")], "def total(xs):\n    return sum(xs)\n")
    largest = EfficiencyMeter(CountingSandbox())._plan(task)[0][-1]
    assert largest.call.count(",") == 19_999
    assert largest.start_s == pytest.approx(20_000 * CountingSandbox.READ_S) and largest.reference_s == pytest.approx(20_000 * CountingSandbox.ADD_S)
