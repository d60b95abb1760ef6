"""Endless fresh problems: procedural families, each with its own wording, reference and tests, all fixed by a seed.

A family draws a *rule* (which filter, which step, which pieces move how), not merely other numbers for one rule, so that knowing one
member does not give the next one away. Nothing generated is stored or counted among the built-in problems.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rlaif.problems import families, families_intro, families_more
from rlaif.problems.schema import assign_roles
from rlaif.types import Problem, TestCase

TESTS = 11
NAMED = 600
"""Problems in a set that is asked for by name."""
FAMILIES: dict[str, Callable[[random.Random], families.Draft]] = {
    "pipeline": families.pipeline,
    "text": families.text,
    "recurrence": families.recurrence,
    "grid_paths": families.grid_paths,
    "machine": families.machine,
    "records": families.records,
    "automaton": families_more.automaton,
    "leaper": families_more.leaper,
    "intervals": families_more.intervals,
    "digits": families_more.digits,
    "expression": families_more.expression,
    "counter_class": families_more.counter_class,
    "windows": families_more.windows,
    "calendar": families_more.calendar,
    "short_lists": families_intro.short_lists,
    "short_parts": families_intro.short_parts,
    "short_texts": families_intro.short_texts,
    "short_numbers": families_intro.short_numbers,
    "short_choices": families_intro.short_choices,
    "short_dictionaries": families_intro.short_dictionaries,
}


FIRST_LEVEL = tuple(name for name in FAMILIES if name.startswith("short_"))
"""Those of difficulty `intro`."""


def generate(count: int, seed: int, names: Sequence[str] | None = None) -> list[Problem]:
    """`count` problems, all different, the families (default: all) taking turns. The same arguments give the same problems.

    Raises ValueError for an unknown family, or if the families asked for have no more rules to give.
    """
    stream = endless(seed, names)
    return [next(stream) for _ in range(count)]


def endless(seed: int, names: Sequence[str] | None = None) -> Iterator[Problem]:
    """Problems for ever, all different in prompt and reference."""
    chosen = list(names or FAMILIES)
    for name in chosen:
        if name not in FAMILIES:
            raise ValueError(f"no family is called {name!r}: one of {', '.join(FAMILIES)}")
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        fresh = False
        for name in chosen:
            for _ in range(20):  # a small family may draw a rule again, or inputs that all have one answer
                problem = _build(name, rng)
                if problem.id not in seen and len({test.expected for test in problem.tests}) > 1:
                    seen.add(problem.id)
                    fresh = True
                    yield problem
                    break
        if not fresh:
            raise ValueError("these families have no more rules to give: ask for fewer problems or for more families")


def named(name: str) -> list[Problem]:
    """The set `generated/NAME`, always the same: NAMED problems (fewer where there are no more rules) of one family, of `intro` for the families of
    the first level, or of all families where NAME is empty.

    Raises ValueError for an unknown family.
    """
    stream = endless(0, FIRST_LEVEL if name == "intro" else [name] if name else None)
    found = [next(stream)]
    with suppress(ValueError):  # spent
        found += islice(stream, NAMED - 1)
    return found


def _build(name: str, rng: random.Random) -> Problem:
    draft = FAMILIES[name](rng)
    answer = _Reference(draft)
    inputs = dict.fromkeys(draft.edge_cases)
    while len(inputs) < TESTS:
        inputs[draft.make_input(rng)] = None
    ordered = list(inputs)
    rng.shuffle(ordered)
    tests = assign_roles([TestCase("graded", call, answer(call)) for call in ordered])
    identity = hashlib.sha256((draft.prompt + draft.reference).encode()).hexdigest()[:10]
    return Problem(
        id=f"generated/{name}/{identity}",
        prompt=draft.prompt,
        tests=tests,
        entry_point=draft.entry_point,
        signature=draft.signature,
        reference=draft.reference,
        difficulty=draft.difficulty,
        topic=name,
        source="generated",
    )


@dataclass
class _Reference:
    """Runs the draft's own reference, which this package wrote: expected values come from the text that is handed out."""

    draft: families.Draft

    def __call__(self, call: str) -> str:
        space: dict[str, Any] = {}
        exec(self.draft.reference, space)
        *statements, last = call.split("\n")
        exec("\n".join(statements), space)
        return repr(eval(last, space))
