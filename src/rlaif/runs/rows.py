"""A rollout as one JSON row, and back.

A row holds everything about one completion but its problem, which is stored once in `problems.jsonl` and named here by `problem_id`. Each test is
spelt out (role, input, expected, actual) so that a row can be read on its own with `jq`. Fields at their default are left out, which halves the file.
`rollout_from_row(rollout_to_row(r), problems)` equals `r`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from rlaif.types import Completion, Feedback, JudgeReport, Problem, QualityReport, Rollout, TestCase, TestReport, TestResult

Row = dict[str, Any]


def problem_to_row(problem: Problem) -> Row:
    """The problem without the fields that are at their default."""
    row = _shallow(problem, skip=("tests",))
    row["tests"] = [_shallow(test) for test in problem.tests]
    return row


def problem_from_row(row: Row) -> Problem:
    return Problem(**{**_known(Problem, row), "tests": tuple(TestCase(**_known(TestCase, test)) for test in row.get("tests", ()))})


def rollout_to_row(rollout: Rollout) -> Row:
    """One line of `rollouts.jsonl`; keys as in the dataclasses of `rlaif.types`, in the order in which a person asks for them."""
    feedback = rollout.feedback
    row: Row = {
        "episode": rollout.episode,
        "problem_id": rollout.problem.id,
        "reward": feedback.reward,
        "outcome": feedback.outcome,
        "band": feedback.band,
        "verified": feedback.verified,
        "advantage": rollout.advantage,
        "held_out_passed": rollout.held_out_passed,
        "code": rollout.completion.code,
        "text": rollout.completion.text,
        "finish_reason": rollout.completion.finish_reason,
        "token_ids": list(rollout.completion.token_ids),
        "reasons": list(feedback.reasons),
        "tests": None,
        "judge": None,
        "quality": None,
        "efficiency": feedback.efficiency,
    }
    if feedback.tests is not None:
        report = _shallow(feedback.tests, skip=("results",))
        report["results"] = [
            {**_shallow(result.test), **_shallow(result, skip=("test",)), "passed": result.passed} for result in feedback.tests.results
        ]
        row["tests"] = {**report, "passed": feedback.tests.passed, "total": feedback.tests.total}
    if feedback.judge is not None:
        row["judge"] = {"score": feedback.judge.score, **_shallow(feedback.judge)}
    if feedback.quality is not None:
        row["quality"] = _shallow(feedback.quality)
    if rollout.extra:
        row["extra"] = rollout.extra
    return row


def rollout_from_row(row: Row, problems: Mapping[str, Problem]) -> Rollout:
    """The rollout of a row; a problem that is not in `problems` comes back as its id alone."""
    feedback = Feedback(
        reward=row["reward"],
        outcome=row["outcome"],
        verified=row.get("verified", False),
        band=row.get("band"),
        tests=_test_report(row["tests"]) if row.get("tests") else None,
        judge=JudgeReport(**{"score": None, **_known(JudgeReport, row["judge"]), "reasons": tuple(row["judge"].get("reasons", ()))})
        if row.get("judge")
        else None,
        quality=QualityReport(**{**_known(QualityReport, row["quality"]), "findings": tuple(row["quality"].get("findings", ()))})
        if row.get("quality")
        else None,
        efficiency=row.get("efficiency"),
        reasons=tuple(row.get("reasons", ())),
    )
    problem_id = row["problem_id"]
    completion = Completion(problem_id, row.get("text", ""), row.get("code", ""), tuple(row.get("token_ids", ())), row.get("finish_reason", "eos"))
    problem = problems.get(problem_id) or Problem(problem_id, "")
    return Rollout(row["episode"], problem, completion, feedback, row.get("advantage"), row.get("held_out_passed"), row.get("extra", {}))


def _test_report(row: Row) -> TestReport:
    results = tuple(TestResult(test=TestCase(**_known(TestCase, result)), **_known(TestResult, result)) for result in row.get("results", ()))
    return TestReport(**{**_known(TestReport, row, skip=("passed", "total")), "results": results})


def _shallow(item: Any, skip: tuple[str, ...] = ()) -> Row:
    """A dataclass's own fields, those at their default left out and tuples as lists."""
    row: Row = {}
    for spec in fields(item):
        if spec.name in skip:
            continue
        value = getattr(item, spec.name)
        default = spec.default if spec.default is not MISSING else spec.default_factory() if spec.default_factory is not MISSING else MISSING
        if default is MISSING or value != default:
            row[spec.name] = list(value) if isinstance(value, tuple) else value
    return row


def _known(cls: type, row: Row, skip: tuple[str, ...] = ()) -> Row:
    """The keys of a row that this version of the dataclass knows, so that a run written by a later version still opens."""
    names = {spec.name for spec in fields(cls)}
    return {key: value for key, value in row.items() if key in names and key not in skip}
