"""CPU time on growing inputs against the reference. First version: absent."""

from __future__ import annotations

from typing import Any

from rlaif.types import Problem


class EfficiencyMeter:
    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox

    def efficiency(self, problem: Problem, code: str) -> float | None:
        return None
