"""The one formula: its bands, its order, and what it says when nobody could answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.rewards import band_of, combine
from rlaif.rewards.credit import partial_credit
from rlaif.types import JudgeReport, Problem, QualityReport, TestCase, TestReport, TestResult

PROBLEM = Problem("p", "Double x.", tuple(TestCase("graded", f"f({i})", str(2 * i)) for i in range(5)), entry_point="f")


def report(*passed: bool, problem: Problem = PROBLEM, **fields: object) -> TestReport:
    tests = problem.tests_of("graded")
    results = tuple(TestResult(test, ok, actual="7") for test, ok in zip(tests, passed, strict=False))
    return TestReport(**{"outcome": "scored", "results": results, **fields})  # type: ignore[arg-type]


beliefs = st.floats(0, 1)
judges = st.one_of(
    st.none(),
    st.builds(lambda s, m: JudgeReport(s, {"correctness": s, "clarity": m}, mix=m), beliefs, beliefs),
    st.just(JudgeReport(None, error="trivial: nothing", refused=True)),
)
qualities = st.one_of(st.none(), st.builds(QualityReport, beliefs))
efficiencies = st.one_of(st.none(), beliefs)
outcomes = st.lists(st.booleans(), min_size=5, max_size=5)
modes = st.sampled_from(["hybrid", "execution"])


@given(outcomes, judges, qualities, efficiencies, judges, qualities, efficiencies, modes, st.sampled_from(["easy", "medium", "hard"]))
def test_a_failing_program_never_outranks_a_passing_one(passed, judge, quality, speed, judge2, quality2, speed2, mode, difficulty):
    problem = replace(PROBLEM, difficulty=difficulty)
    failing = combine(problem, report(*passed[:4], False), judge, quality, speed, mode)
    passing = combine(problem, report(*[True] * 5), judge2, quality2, speed2, mode)
    assert 0.1 <= failing.reward < 0.3 <= passing.reward <= 1.0
    assert failing.band == "poor" and passing.band in ("okay", "good")
    assert failing.verified and passing.verified


@given(
    st.sampled_from(["syntax_error", "missing_entry_point", "load_error", "timeout", "memory", "early_exit", "crash", "tampering", "too_large"]),
    judges,
    modes,
)
def test_what_is_no_solution_stays_in_the_lowest_band(failure, judge, mode):
    feedback = combine(PROBLEM, TestReport("policy_failure", failure=failure), judge, QualityReport(1.0), 1.0, mode)
    assert 0.0 <= feedback.reward <= 0.1 and feedback.outcome == "policy_failure" and feedback.band == "poor"


@given(outcomes, st.integers(0, 4), judges, qualities, efficiencies, modes)
def test_one_more_passed_test_never_costs(passed, index, judge, quality, speed, mode):
    better = [*passed]
    better[index] = True
    low, high = (combine(PROBLEM, report(*row), judge, quality, speed, mode).reward for row in (passed, better))
    assert high >= low


@given(beliefs, beliefs, outcomes, qualities, efficiencies, st.sampled_from(["hybrid", "ai"]))
def test_reward_rises_with_the_judges_belief(a, b, passed, quality, speed, mode):
    low, high = sorted((a, b))
    rewards = [combine(PROBLEM, report(*passed), JudgeReport(score), quality, speed, mode).reward for score in (low, high)]
    assert rewards[0] <= rewards[1]


@given(outcomes, qualities, efficiencies, judges, st.sampled_from(["hybrid", "ai"]))
def test_provoking_a_refusal_never_pays(passed, quality, speed, judge, mode):
    refused = combine(PROBLEM, report(*passed), JudgeReport(None, error="overlong: x", refused=True), quality, speed, mode)
    answered = combine(PROBLEM, report(*passed), judge or JudgeReport(0.0), quality, speed, mode)
    assert refused.reward is not None and refused.reward <= answered.reward


@pytest.mark.parametrize("mode", ["hybrid", "ai"])
def test_a_judge_that_broke_gives_no_reward(mode):
    feedback = combine(PROBLEM, report(*[True] * 5), JudgeReport(None, error="connection refused"), None, None, mode)
    assert feedback.reward is None and feedback.outcome == "infra_failure" and feedback.band is None
    assert "connection refused" in feedback.reasons[0]


def test_a_sandbox_that_broke_gives_no_reward():
    feedback = combine(PROBLEM, TestReport("infra_failure", failure="zygote died"), JudgeReport(1.0), None, None, "hybrid")
    assert feedback.reward is None and feedback.outcome == "infra_failure"


def test_execution_ignores_the_judge_and_needs_tests():
    passed = report(*[True] * 5)
    assert combine(PROBLEM, passed, JudgeReport(0.0), QualityReport(1.0), 1.0, "execution").reward == 1.0
    assert combine(PROBLEM, passed, JudgeReport(None, error="down"), QualityReport(1.0), 1.0, "execution").judge is None
    assert combine(PROBLEM, None, JudgeReport(1.0), None, None, "execution").outcome == "invalid_input"


@given(beliefs)
def test_ai_mode_is_unverified_and_linear_in_belief(belief):
    feedback = combine(PROBLEM, None, JudgeReport(belief), None, None, "ai")
    assert feedback.reward == pytest.approx(0.1 + 0.75 * belief) and not feedback.verified


def test_worked_example_of_every_band():
    clean, messy = QualityReport(0.9), QualityReport(0.2, ("F841 line 2: unused",))
    judge = JudgeReport(0.8, {"correctness": 0.8})
    # q = (0.4*0.8 + 0.35*0.9 + 0.25*1.0) / 1.0 = 0.885
    assert combine(PROBLEM, report(*[True] * 5), judge, clean, 1.0, "hybrid").reward == pytest.approx(0.6 + 0.4 * 0.885)
    # efficiency 0.1 is clearly slow: q = 0.32 + 0.315 + 0.025 = 0.66
    assert combine(PROBLEM, report(*[True] * 5), judge, clean, 0.1, "hybrid").reward == pytest.approx(0.3 + 0.29 * 0.66)
    # poor lint, no efficiency: q = (0.32 + 0.07) / 0.75 = 0.52
    assert combine(PROBLEM, report(*[True] * 5), judge, messy, None, "hybrid").reward == pytest.approx(0.3 + 0.29 * 0.52)
    # 3 of 5 distinct answers: credit = (0.6 - 0.2) / 0.8 * 0.6 = 0.3
    assert combine(PROBLEM, report(True, True, True, False, False), judge, clean, None, "hybrid").reward == pytest.approx(
        0.1 + 0.15 * 0.3 + 0.04 * 0.8
    )


def test_reasons_name_the_failed_test_its_values_and_the_judges_view():
    judge = JudgeReport(0.4, {"clarity": 0.3}, ("clarity: 0.30",), judge="scripted")
    reasons = "\n".join(
        combine(PROBLEM, report(True, False, True, True, True), judge, QualityReport(0.5, ("E711 line 1: x",)), None, "hybrid").reasons
    )
    for words in ("4 of 5 tests", "f(1) gave 7, expected 2", "clarity: 0.30", "E711", "scripted"):
        assert words in reasons


def _bools(*expected: str) -> Problem:
    return replace(PROBLEM, tests=tuple(TestCase("graded", f"f({i})", value) for i, value in enumerate(expected)), difficulty="hard")


def test_a_constant_answer_earns_no_credit():
    problem = _bools("True", "True", "True", "True", "False")
    assert partial_credit(problem, report(True, True, True, True, False, problem=problem)) == 0.0
    assert partial_credit(problem, report(False, False, False, False, True, problem=problem)) == 0.0
    assert partial_credit(problem, report(True, True, True, False, True, problem=problem)) == pytest.approx(0.75)
    asserts = replace(problem, tests=tuple(TestCase("graded", f"assert f({i}) == {v}", form="code") for i, v in enumerate([1, 1, 1, 2])))
    assert partial_credit(asserts, report(True, True, True, False, problem=asserts)) == 0.0


def test_bands_are_the_seeds():
    assert [band_of(value) for value in (0.0, 0.2999, 0.3, 0.5999, 0.6, 1.0, None)] == ["poor", "poor", "okay", "okay", "good", "good", None]
