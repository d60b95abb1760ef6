"""The fixed train/validation/test split of the built-in set, and the split of a file that names none.

The built-in split is data (`data/splits.json`), written by `python -m rlaif.problems.split` and checked by a test. It is stratified by
topic and difficulty; within a stratum the order is a hash of the id; and problems that are alike stay on one side: near-duplicates by
`dedupe`, and pairs (`alike` in the file) of which one's reference passes the other's tests, found by `check.stand_ins`.
A problem that the file lists keeps its place when others are added: what a model was trained on yesterday is no test problem tomorrow.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlaif.problems.dedupe import Pair, near_duplicates, together
from rlaif.types import Difficulty, Problem, Split

TEST_SHARE: dict[Difficulty, float] = {"intro": 0.25, "easy": 0.16, "medium": 0.16, "hard": 0.16}
VALIDATION_SHARE = 0.055
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SPLIT_FILE = Path(__file__).parent / "data" / "splits.json"
SMALLEST_FILE_TO_SPLIT = 10
"""A user's file with fewer problems than this, and no `split` of its own, is too small to hold any out: it belongs to every split."""


def stable_hash(text: str) -> int:
    """The same number on every machine and in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stratified_split(
    problems: Sequence[Problem], groups: Iterable[Sequence[str]] = (), placed: Mapping[str, Split] | None = None
) -> dict[str, Split]:
    """id → split. `groups` are ids that must stay together (near-duplicates); each goes where its smallest hash would go.

    placed: ids whose split is decided already; what is in a group with one of them goes with it.
    """
    placed = placed or {}
    leader = {name: min(group, key=lambda one: (one not in placed, stable_hash(one))) for group in groups for name in group}
    strata: dict[tuple[str, Difficulty], list[Problem]] = defaultdict(list)
    for problem in problems:
        if leader.get(problem.id, problem.id) == problem.id and problem.id not in placed:
            strata[problem.topic, problem.difficulty].append(problem)
    chosen: dict[str, Split] = dict(placed)
    test_due = validation_due = 0.0  # carried over, so that rounding in many small strata does not add up
    for key in sorted(strata):
        members = sorted(strata[key], key=lambda problem: stable_hash(problem.id))
        test_due += len(members) * TEST_SHARE[key[1]]
        validation_due += len(members) * VALIDATION_SHARE
        tests, validations = round(test_due), round(validation_due)
        test_due, validation_due = test_due - tests, validation_due - validations
        for index, problem in enumerate(members):
            chosen[problem.id] = "test" if index < tests else "validation" if index < tests + validations else "train"
    return {problem.id: chosen[problem.id if problem.id in placed else leader.get(problem.id, problem.id)] for problem in problems}


def with_builtin_split(problems: Sequence[Problem]) -> list[Problem]:
    """The built-in problems with the split that the data file fixes; a problem that it does not know is for training."""
    fixed = known_places(problems) if SPLIT_FILE.exists() else stratified_split(problems)
    return [replace(problem, split=fixed.get(problem.id, "train")) for problem in problems]


def split_by_hash(problems: Sequence[Problem], share: float = 0.2) -> list[Problem]:
    """A file's problems with about `share` of them (at least one) in the test split, by the hash of their prompts."""
    order = sorted(range(len(problems)), key=lambda i: stable_hash(problems[i].prompt))
    held = set(order[: max(1, round(len(problems) * share))])
    return [replace(problem, split="test" if i in held else "train") for i, problem in enumerate(problems)]


def write_split_file(problems: Sequence[Problem], alike: Sequence[Sequence[str]], path: Path = SPLIT_FILE) -> dict[str, int]:
    """Write the built-in split; returns how many problems each split has. Problems that it lists already stay where they are.

    alike: pairs known to be alike for reasons that `dedupe` cannot see.
    """
    words = [Pair(first, second, 0.0, 0.0, "both") for first, second in alike]
    chosen = stratified_split(problems, together([*near_duplicates(problems), *words]), known_places(problems, path))
    listed = {split: sorted(name for name, its in chosen.items() if its == split) for split in SPLITS}
    path.write_text(json.dumps({"alike": [list(pair) for pair in alike]} | listed, indent=1) + "\n", encoding="utf-8")
    return {split: sum(its == split for its in chosen.values()) for split in SPLITS}


def known_places(problems: Sequence[Problem], path: Path = SPLIT_FILE) -> dict[str, Split]:
    """id → split of those of the problems that the split file lists."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    there = {problem.id for problem in problems}
    return {name: split for split in SPLITS for name in stored.get(split, ()) if name in there}


def known_alike() -> list[list[str]]:
    """The pairs that the split file holds."""
    return json.loads(SPLIT_FILE.read_text(encoding="utf-8"))["alike"] if SPLIT_FILE.exists() else []


if __name__ == "__main__":
    import sys

    from rlaif.config import SandboxConfig
    from rlaif.problems.check import stand_ins
    from rlaif.problems.load import load_problems
    from rlaif.sandbox.box import Sandbox

    everything = load_problems("builtin")
    if "--find-alike" in sys.argv:  # minutes
        # References run in milliseconds; the short limit is for those that never end on another problem's input.
        with Sandbox(SandboxConfig(timeout_s=0.3)) as sandbox:
            found: list[Sequence[str]] = [list(pair) for pair in stand_ins(everything, sandbox)]
    else:
        found = list(known_alike())
    print(write_split_file(everything, found))
