"""The one formula: from what tests, judge and tools found to a reward in [0, 1] with its reasons.

The bands hold by construction. With tests (modes `hybrid`, `execution`):

    0.00 .. 0.10   it does not run as a solution (does not parse, entry point missing, tampering)
    0.10 .. 0.29   it runs, some tests fail:  0.1 + 0.15 * credit + 0.04 * judge
    0.30 .. 0.59   all pass, but clearly inefficient or poor in static quality:  0.3 + 0.29 * q
    0.60 .. 1.00   all pass, clean and efficient:  0.6 + 0.4 * q

so no failing program outranks a passing one, whatever a judge says. Without tests, or in mode `ai`:  0.1 + 0.75 * p, unverified.
"""

from __future__ import annotations

from rlaif.rewards.credit import partial_credit
from rlaif.types import Band, Feedback, FeedbackMode, JudgeReport, Outcome, Problem, QualityReport, TestReport, TestResult

POOR_QUALITY = 0.5
"""Static quality below this keeps a passing program out of the good band."""
INEFFICIENT = 0.4
"""Efficiency below this does too (see efficiency.py for the scale)."""

_CREDIT_SPAN = 0.15
_JUDGE_SPAN = 0.04
_MIX_SHARE = 0.25
"""How much of p comes from the principles' mix; the rest is the calibrated belief."""
_Q_WEIGHTS = {"judge": 0.4, "quality": 0.35, "efficiency": 0.25}

_FAILURES = {
    "tampering": (0.0, "it interferes with the program that grades it"),
    "too_large": (0.0, "it is too large to be run"),
    "syntax_error": (0.02, "it does not parse"),
    "missing_entry_point": (0.04, "the function asked for is missing"),
    "early_exit": (0.05, "it ends the program before it can be tested"),
    "load_error": (0.06, "it fails as it is loaded"),
    "crash": (0.06, "it crashes"),
    "memory": (0.08, "it runs out of memory"),
    "timeout": (0.08, "it runs out of time"),
}
"""Reward and words for each `TestReport.failure`; all inside the lowest band."""

_NOT_A_SOLUTION = frozenset({"syntax_error", "missing_entry_point"})


def combine(
    problem: Problem,
    tests: TestReport | None,
    judge: JudgeReport | None,
    quality: QualityReport | None,
    efficiency: float | None,
    mode: FeedbackMode,
) -> Feedback:
    """One completion's feedback.

    tests: None where none were run. judge: None where none was asked; a report without a score is a refusal (provoked by the code: the
    lowest reward of its band) or a failure (no reward). efficiency: in [0, 1], None where it could not be measured.
    """
    parts = {"tests": tests, "judge": judge, "quality": quality, "efficiency": efficiency}
    if mode == "execution":
        judge = parts["judge"] = None
    if mode == "ai" or tests is None or (tests.outcome == "scored" and tests.total == 0):
        if mode == "execution":
            return _no_reward("invalid_input", "execution feedback needs tests, and this problem has none", parts)
        return _judged(problem, tests, judge, parts, mode)
    return _tested(problem, tests, judge, quality, efficiency, parts)


def _tested(
    problem: Problem, tests: TestReport, judge: JudgeReport | None, quality: QualityReport | None, efficiency: float | None, parts: dict
) -> Feedback:
    if tests.outcome in ("infra_failure", "invalid_input"):
        return _no_reward(tests.outcome, tests.message or tests.failure or "the sandbox could not answer", parts)
    if tests.outcome == "policy_failure":
        reward, words = _FAILURES.get(tests.failure or "", (0.05, f"it failed ({tests.failure})"))
        return _feedback(reward, "policy_failure", True, (f"{words}: {tests.message}" if tests.message else words,), parts)
    if judge is not None and judge.score is None and not judge.refused:
        return _no_reward("infra_failure", f"the judge could not answer: {judge.error}", parts)
    refused = judge is not None and judge.refused
    reasons = [f"{tests.passed} of {tests.total} tests passed", *failed_tests(tests)]
    if not tests.all_passed:
        credit = partial_credit(problem, tests)
        reward = 0.1 if refused else 0.1 + _CREDIT_SPAN * credit + _JUDGE_SPAN * (_belief(judge) or 0.0)
        reasons.append(f"partial credit {credit:.2f}, above what the best constant answer would get")
    else:
        slow, poor = efficiency is not None and efficiency < INEFFICIENT, quality is not None and quality.score < POOR_QUALITY
        q = 0.0 if refused else _mixed_quality(judge, quality, efficiency)
        reward = 0.3 + 0.29 * q if slow or poor else 0.6 + 0.4 * q
        if slow:
            reasons.append("all tests pass, but it is clearly slower than the reference as inputs grow")
        if poor:
            reasons.append("all tests pass, but its static quality is poor")
    return _feedback(reward, "scored", True, (*reasons, *_views(judge, quality, efficiency)), parts)


def _judged(problem: Problem, tests: TestReport | None, judge: JudgeReport | None, parts: dict, mode: FeedbackMode) -> Feedback:
    if judge is None:
        why = "ai feedback needs a judge" if mode == "ai" else "no tests and no judge: nothing can grade this"
        return _no_reward("invalid_input", why, parts)
    if judge.refused:
        kind = (judge.error or "").split(":")[0]
        reward = _FAILURES[kind][0] if kind in _NOT_A_SOLUTION else 0.1
        return _feedback(reward, "policy_failure", False, (f"refused before a judge saw it: {judge.error}",), parts)
    belief = _belief(judge)
    if belief is None:
        return _no_reward("infra_failure", f"the judge could not answer: {judge.error}", parts)
    reasons = (f"the judge believes with {belief:.2f} that it is right; nothing was run", *_views(judge, parts["quality"], None))
    return _feedback(0.1 + 0.75 * belief, "scored", False, reasons, parts)


def _belief(judge: JudgeReport | None) -> float | None:
    """p: the calibrated belief, mixed with the principles where the judge gave more than the belief."""
    if judge is None or judge.score is None:
        return None
    if judge.mix is None or len(judge.principles) < 2:
        return judge.score
    return (1 - _MIX_SHARE) * judge.score + _MIX_SHARE * judge.mix


def _mixed_quality(judge: JudgeReport | None, quality: QualityReport | None, efficiency: float | None) -> float:
    """q in [0, 1]: the mean of what is there, by weight; 0.5 if nothing is."""
    terms = {"judge": _belief(judge), "quality": quality.score if quality else None, "efficiency": efficiency}
    known = {name: value for name, value in terms.items() if value is not None}
    weight = sum(_Q_WEIGHTS[name] for name in known)
    return sum(_Q_WEIGHTS[name] * min(1.0, max(0.0, value)) for name, value in known.items()) / weight if known else 0.5


def band_of(reward: float | None) -> Band | None:
    """The seed's bands: poor below 0.3, okay below 0.6, good from there."""
    return None if reward is None else "poor" if reward < 0.3 else "okay" if reward < 0.6 else "good"


def failed_tests(tests: TestReport, limit: int = 5) -> list[str]:
    """A sentence for each failed test, at most `limit` and a count of the rest."""
    failed = [result for result in tests.results if not result.passed]
    lines = [_failed_test(result) for result in failed[:limit]]
    return lines + ([f"and {len(failed) - limit} more failed tests"] if len(failed) > limit else [])


def _failed_test(result: TestResult) -> str:
    what = _short(result.test.input)
    if result.error:
        return f"failed: {what}: {_short(result.error)}"
    if result.test.form == "code":
        return f"failed: {what}"
    return f"failed: {what} gave {_short(result.actual if result.actual is not None else 'nothing')}, expected {_short(result.test.expected)}"


def _short(text: str, limit: int = 160) -> str:
    text = text.strip()
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _views(judge: JudgeReport | None, quality: QualityReport | None, efficiency: float | None) -> tuple[str, ...]:
    lines: list[str] = []
    if judge is not None:
        if judge.refused:
            lines.append(f"refused before a judge saw it, so the lowest reward of its band: {judge.error}")
        elif judge.score is not None:
            lines.append(f"judge {judge.judge}: belief {judge.score:.2f}")
            lines += [f"judge: {reason}" for reason in judge.reasons]
    if quality is not None:
        lines.append(f"static quality {quality.score:.2f}")
        lines += [f"lint: {finding}" for finding in quality.findings]
    if efficiency is not None:
        lines.append(f"efficiency {efficiency:.2f} against the reference")
    return tuple(lines)


def _feedback(reward: float, outcome: Outcome, verified: bool, reasons: tuple[str, ...], parts: dict) -> Feedback:
    reward = min(1.0, max(0.0, reward))
    return Feedback(reward, outcome, verified=verified, band=band_of(reward), reasons=reasons, **parts)


def _no_reward(outcome: Outcome, why: str, parts: dict) -> Feedback:
    return Feedback(None, outcome, reasons=(why,), **parts)
