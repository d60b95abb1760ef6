"""Problems and replies of four kinds to each, as a model might write them, for the checks in this folder."""

from __future__ import annotations

from typing import NamedTuple

from rlaif.problems import load_problems
from rlaif.types import Problem


class Reply(NamedTuple):
    """What a model says. `lowest` and `highest` bound the reward that it must get with execution feedback."""

    kind: str
    problem: Problem
    text: str
    lowest: float
    highest: float


def replies(count: int = 4) -> list[Reply]:
    """Right, wrong, no function of that name, no Python, for each of the first `count` built-in training problems."""
    found: list[Reply] = []
    for problem in load_problems("builtin", split="train", limit=count):
        name = problem.entry_point
        fenced = "Here it is:\n```python\n{}\n```\nIt runs in linear time."
        found.append(Reply("right", problem, fenced.format(problem.reference), 0.3, 1.0))
        found.append(Reply("wrong", problem, fenced.format(f"def {name}(*args, **kwargs):\n    return 'no'"), 0.1, 0.2999))
        found.append(Reply("missing", problem, fenced.format("def something_else():\n    return 1"), 0.0, 0.1))
        found.append(Reply("prose", problem, "I am afraid that I cannot help with that, sorry.", 0.0, 0.1))
    return found
