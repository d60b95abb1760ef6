"""Which built-in problems ask for what HumanEval or MBPP ask for: run every built-in reference on every public problem's tests.

    RLAIF_SHARED=FOLDER python -m rlaif.problems.overlaps            # compare with data/overlaps.json; exit code 1 if it is out of date
    RLAIF_SHARED=FOLDER python -m rlaif.problems.overlaps --write    # write it

FOLDER holds data/humaneval.jsonl and data/mbpp_sanitized.jsonl. Wording and shape are compared by `dedupe`; this finds the same task told
and solved otherwise. Only tests that are plain comparisons (`f(literals) == literal`) can be asked of another function. The references
are this package's own code and run in this process, each call against the clock.
"""

from __future__ import annotations

import ast
import copy
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from rlaif.errors import UsageError
from rlaif.problems import pysource
from rlaif.problems.dedupe import OVERLAP_FILE
from rlaif.problems.load import load_problems
from rlaif.types import Problem

Example = tuple[list[Any], Any]
"""Arguments and the value that should come back."""
CALL_S = 0.2
MEMORY_BYTES = 2**30
FILES = ("humaneval.jsonl", "mbpp_sanitized.jsonl")


def find_overlaps(builtin: Sequence[Problem], public: Sequence[Problem]) -> dict[str, list[str]]:
    """Public problem -> built-in problems whose reference passes all its plain comparisons, of which there must be two different ones."""
    functions = [(problem.id, function, inspect.signature(function)) for problem in builtin if (function := _function(problem)) is not None]
    found: dict[str, list[str]] = {}
    for problem in public:
        examples = plain_examples(problem)
        if len({repr(expected) for _, expected in examples}) < 2:  # always True, or one number: a constant would pass
            continue
        with redirect_stdout(StringIO()):
            same = [name for name, function, signature in functions if _takes(signature, examples[0][0]) and _passes(function, examples)]
        if same:
            found[problem.id] = sorted(same)
    return dict(sorted(found.items()))


def plain_examples(problem: Problem) -> list[Example]:
    """The comparisons of a problem's asserts that are a call with literals and a literal value; others are left out."""
    examples: list[Example] = []
    for test in problem.tests:
        tree = pysource.parse_or_none(test.input)
        for node in ast.walk(tree) if tree is not None else ():
            match node:
                case ast.Assert(test=ast.Compare(left=ast.Call(func=ast.Name(id=name), args=args, keywords=[]), ops=[ast.Eq()], comparators=[right])):
                    if name in ("candidate", problem.entry_point):
                        try:
                            examples.append(([ast.literal_eval(one) for one in args], ast.literal_eval(right)))
                        except (ValueError, TypeError, SyntaxError):
                            continue
    return examples


def _function(problem: Problem) -> Callable[..., Any] | None:
    if problem.reference is None or problem.entry_point is None:
        return None
    space: dict[str, Any] = {"__name__": "reference"}
    exec(f"{problem.preamble}\n{problem.reference}", space)
    found = space.get(problem.entry_point)
    return found if inspect.isfunction(found) else None


def _takes(signature: inspect.Signature, args: Sequence[Any]) -> bool:
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True


def _passes(function: Callable[..., Any], examples: Sequence[Example]) -> bool:
    for args, expected in examples:
        try:
            with _clock(CALL_S):
                value = function(*copy.deepcopy(args))
                # 1 == True and (1, 2) == [1, 2] are no coincidences worth reporting, but list and tuple are a matter of taste
                if isinstance(value, bool) != isinstance(expected, bool) or _plain(value) != _plain(expected):
                    return False
        except Exception:  # the references were written for other arguments, and fail on these in every way there is
            return False
    return True


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def _clock(seconds: float) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(argv: Sequence[str]) -> int:
    folder = Path(os.environ.get("RLAIF_SHARED", "")) / "data"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if "RLAIF_SHARED" not in os.environ or missing:
        raise UsageError("HumanEval and MBPP are needed", f"no {' and no '.join(missing)} in {folder}", "RLAIF_SHARED=FOLDER, which holds data/")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))  # a reference asked for n = 10**12
    public = [problem for name in FILES for problem in load_problems(str(folder / name))]
    found = find_overlaps(load_problems("builtin"), public)
    known = json.loads(OVERLAP_FILE.read_text(encoding="utf-8")) if OVERLAP_FILE.exists() else {}
    if "--write" in argv:
        OVERLAP_FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    new = {(public, own) for public, names in found.items() for own in names} - {(public, own) for public, names in known.items() for own in names}
    gone = {(public, own) for public, names in known.items() for own in names} - {(public, own) for public, names in found.items() for own in names}
    for title, pairs in (("new", new), ("gone", gone)):
        for pair in sorted(pairs):
            print(f"{title}: {pair[0]} ~ {pair[1]}")
    print(f"{len(found)} of {len(public)} public problems are asked for by a built-in one; {len(new)} pairs new, {len(gone)} gone")
    return 0 if "--write" in argv or not (new or gone) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
