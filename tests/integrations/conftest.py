"""Exported rows, one scorer for the session, and a sandbox that breaks on demand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlaif.config import SandboxConfig
from rlaif.integrations import Scorer
from rlaif.problems import load_problems
from rlaif.rewards import RewardEngine
from rlaif.types import Feedback, Problem, TestReport


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return load_problems("builtin", split="train", limit=4)


@pytest.fixture(scope="session")
def scorer() -> Iterator[Scorer]:
    """Execution feedback, without timing: that is tested where it lives."""
    with Scorer(feedback="execution", sandbox={"timeout_s": 3, "workers": 8}) as made:
        made.engine.meter = None
        yield made


def fenced(code: str | None) -> str:
    """A reply with this code in it."""
    return f"Here it is:\n```python\n{code}\n```\n"


class BrokenSandbox:
    """Cannot answer, for reasons of its own."""

    config = SandboxConfig()

    def run_many(self, jobs: Any) -> Iterator[TestReport]:
        return (TestReport("infra_failure", (), "the sandbox broke") for _ in jobs)

    def close(self) -> None: ...


@pytest.fixture
def broken() -> Iterator[Scorer]:
    with Scorer(engine=RewardEngine(BrokenSandbox(), None, "execution", efficiency=False)) as made:
        yield made


class CountingEngine:
    """Notes the sizes of its batches; answers with the code's length."""

    judge, sandbox, mode = None, None, "execution"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, problems: list[Problem], codes: list[str]) -> list[Feedback]:
        import time

        self.batches.append(len(codes))
        time.sleep(0.05)
        if "boom" in codes:
            raise ValueError("one bad sample")
        return [Feedback(len(code) / 100, "scored") for code in codes]
