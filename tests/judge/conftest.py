"""A tiny random judge model, built once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tiny_models, shared with other rooms' tests

from tiny_models import make_tiny

from rlaif.types import Problem, TestCase

TASKS = (
    Problem("add", "Add two numbers a and b.", (TestCase("shown", "add(1, 2)", "3"), TestCase("graded", "add(2, 2)", "4")), "add", "def add(a, b):"),
    Problem("twice", "Double every value.", (TestCase("graded", "twice([1])", "[2]"),), "twice", "def twice(values):"),
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny("llama") -> folder of a random model with room for a rubric."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = make_tiny(kind, tmp_path_factory.mktemp(kind), scale=0.15)  # type: ignore[arg-type]
            config = folder / "config.json"
            config.write_text(config.read_text().replace('"max_position_embeddings": 256', '"max_position_embeddings": 4096'))
            made[kind] = folder
        return made[kind]

    return get
