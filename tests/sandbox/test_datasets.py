"""HumanEval's and MBPP's own solutions pass their unmodified tests on both paths; bodies of `pass` fail all of them."""

from __future__ import annotations

import pytest

from rlaif.config import SandboxConfig
from rlaif.sandbox import Job, Sandbox

from . import datasets

pytestmark = pytest.mark.skipif(datasets.folder() is None, reason="RLAIF_SHARED is not set")
CANNOT_TELL: set[str] = set()
"""Problems whose tests a stub passes. (None of the 591.)"""


@pytest.mark.parametrize("lowering", [True, False], ids=["lowered", "opaque"])
@pytest.mark.parametrize(("load", "count", "lowered_wholly"), [(datasets.humaneval, 164, 145), (datasets.mbpp, 427, 400)], ids=["humaneval", "mbpp"])
def test_canonical_solutions_pass_and_stubs_fail(load, count: int, lowered_wholly: int, lowering: bool) -> None:
    rows = load()
    assert len(rows) == count
    with Sandbox(SandboxConfig(timeout_s=10), _lowering=lowering) as box:
        good = list(box.run_many(Job(problem, solution) for problem, solution, _ in rows))
        bad = list(box.run_many(Job(problem, stub) for problem, _, stub in rows))
    assert [problem.id for (problem, _, _), report in zip(rows, good, strict=True) if not report.all_passed] == []
    assert {problem.id for (problem, _, _), report in zip(rows, bad, strict=True) if report.all_passed} == CANNOT_TELL
    assert sum(report.path == "lowered" for report in good) >= lowered_wholly if lowering else all(report.path == "opaque" for report in good)
