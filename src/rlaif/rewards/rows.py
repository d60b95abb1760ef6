"""One row in, one row out: how code to be scored and its feedback travel as JSON, for `rlaif reward` and for the reward server alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rlaif.errors import ProblemFileError
from rlaif.problems import problem_from_dict
from rlaif.types import Feedback, Problem


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file: a problem with its code, or why there is none."""

    line: int
    id: Any
    problem: Problem | None
    code: str = ""
    why: str = ""
    correct: bool | None = None
    """A label that the line brings along (`rlaif judge eval`)."""


def entry_of(obj: Any, *, path: str, line: int, needs_tests: bool) -> Entry:
    """A decoded row as a problem with its code. Never raises for what is in it. path, line: where it stands, for the complaint.

    needs_tests: refuse a row without tests, because nothing else could grade it.
    """
    identity = obj.get("id") if isinstance(obj, dict) else None
    try:
        problem = problem_from_dict(obj, path=path, line=line, all_graded=True)
    except ProblemFileError as error:
        return Entry(line, identity, None, why=_why(error))
    except (ValueError, RecursionError, MemoryError) as error:  # a stranger's Python: half characters, absurd nesting, absurd numbers
        return Entry(line, identity, None, why=f"it cannot be read: {str(error)[:200]}")
    code = obj.get("solution")
    if not isinstance(code, str):
        return Entry(line, identity, None, why="field 'solution': it is missing" if code is None else "field 'solution': expected a string")
    if needs_tests and not problem.tests:
        return Entry(line, identity, None, why="it has no tests, and without a judge nothing else can grade it")
    label = obj.get("correct")
    return Entry(line, identity, problem, code, correct=label if isinstance(label, bool) else None)


def row(entry: Entry, feedback: Feedback) -> dict[str, Any]:
    """The output object of one line."""
    tests, judge, quality = feedback.tests, feedback.judge, feedback.quality
    out: dict[str, Any] = {} if entry.id is None else {"id": entry.id}
    out |= {"reward": feedback.reward, "outcome": feedback.outcome, "verified": feedback.verified, "band": feedback.band}
    out["tests"] = (
        {"passed": tests.passed, "total": tests.total} if tests else {"passed": 0, "total": len(entry.problem.tests) if entry.problem else 0}
    )
    out["judge"] = asdict(judge) if judge else None
    out["quality"] = asdict(quality) if quality else None
    return out | {"reasons": list(feedback.reasons)}


def _why(error: ProblemFileError) -> str:
    """The complaint on one line, without the file's name, which the reader knows."""
    field = f"field '{error.field}': " if error.field else ""
    return f"{field}{error.why}" + (f" ({error.try_next})" if error.try_next else "")
