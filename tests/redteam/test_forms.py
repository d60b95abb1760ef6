"""The red team's and the honest programs against the other forms of test, lowered where that can be and wholly unlowered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlaif.config import SandboxConfig
from rlaif.sandbox import Sandbox

from .forms import ATTACKS, HONEST, Case


@pytest.fixture(scope="module", params=[True, False], ids=["lowered", "opaque"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(SandboxConfig(timeout_s=5), _lowering=request.param) as sandbox:
        yield sandbox


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.name)
def test_attack_earns_nothing(box: Sandbox, case: Case) -> None:
    report = box.run(case.problem, case.code)
    assert report.outcome in ("scored", "policy_failure"), report.message
    assert report.passed == 0


@pytest.mark.parametrize("case", HONEST, ids=lambda case: case.name)
def test_honest_program_passes(box: Sandbox, case: Case) -> None:
    report = box.run(case.problem, case.code)
    assert report.all_passed, (report.failure, report.message, [result.error for result in report.results])
