"""The learner's own problems: rows of simple_dataset.py, and single calls to grade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaif.problems.schema import problem_from_dict
from rlaif.types import Problem


def problems_from_rows(rows: Sequence[dict[str, Any]], *, path: object = "problems") -> list[Problem]:
    """Rows of {prompt, test_input, expected_output, difficulty} or {..., tests: [...]} -> problems marked as the user's own.

    Raises ProblemFileError that names the row (counted from 1, as its line) and the field.
    """
    return [problem_from_dict(row, path=path, line=number, source="user") for number, row in enumerate(rows, start=1)]


def problem_from_call(prompt: str, test_input: str, expected_output: str) -> Problem:
    """A task graded by one call. Raises ProblemFileError if the call or the value cannot be read."""
    row = {"prompt": prompt, "test_input": test_input, "expected_output": expected_output}
    return problem_from_dict(row, path="this problem", line=None, source="user")
