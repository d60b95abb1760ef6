"""A policy that writes right and wrong programs by the toss of its generator, a judge that prefers the longer one, and pairs with a plan."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from rlaif.judge.compare import Verdict
from rlaif.judge.constitution import load_constitution
from rlaif.runs import Console
from rlaif.types import Completion, Problem

PROGRAMS = (
    "def add_{i}(n):\n    return n + {i}\n",
    "def add_{i}(n):\n    total = n + {i}\n    return total\n",
    "def add_{i}(n):\n    return n - {i}\n",
    "def add_{i}(n):\n    return abs(n) + {i} if n < 3 else 0\n",
    "def add_{i}(n:\n",
)
"""Right, right, wrong, partly right, no program."""


def silent() -> Console:
    return Console(file=open(os.devnull, "w"), live=False)


def fake_generate(policy, problems: Sequence[Problem], group_size: int, params, generator: torch.Generator):
    """Stands where `rollout.generate` is: completions that depend on the generator alone."""
    completions = []
    for problem in problems:
        toss = torch.randint(len(PROGRAMS), (group_size,), generator=generator).tolist()
        codes = [PROGRAMS[place].replace("{i}", problem.id[1:]) for place in toss]
        completions.append([Completion(problem.id, code, code, (5, 6, 7), "eos") for code in codes])
    return [], [], completions


class LongerIsBetter:
    """A pair judge of known taste. Told to contradict itself on a principle, it does."""

    name = "longer"

    def __init__(self, contradicts: frozenset[str] = frozenset()) -> None:
        self.constitution = load_constitution()
        self.contradicts = contradicts
        self.asked: list[tuple[str, str, str]] = []

    def compare(self, problem, first, second, principle) -> Verdict:
        self.asked.append((problem.id, principle.id, first))
        if principle.id in self.contradicts:
            return Verdict(0.6, consistent=False)
        return Verdict(0.8 if len(first) > len(second) else 0.2)


def planted_pairs(path: Path, *, flip: bool = False, problems: int = 24, each: int = 2) -> Path:
    """Pairs of which the chosen program loops and the rejected one has it in a line (or the reverse), with names that say nothing."""
    rows = []
    for number in range(problems):
        for other in range(each):
            step = number + 3 * other + 1
            loop = f"def f(xs):\n    out = []\n    for x in xs:\n        out.append(x + {step})\n    return out\n"
            line = f"def f(xs):\n    return [x + {step} for x in xs]\n"
            chosen, rejected = (line, loop) if flip else (loop, line)
            row = {"prompt": f"Add {number} to each, way {other}.", "problem_id": f"q{number}", "label_probability": 0.95, "chosen_graded": True}
            row |= {"chosen": f"```python\n{chosen}```", "rejected": f"```python\n{rejected}```", "rejected_graded": False}
            rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
