"""Do rewards land in the right band? 200 labelled programs for built-in training problems, 50 of each kind, in hybrid mode.

    python benchmarks/bands.py --out recipes/bands.json [--judge none]

good     references
slow     correct but slow: 30 written by hand (slow_programs.py), the others work the answer out again for every element or count
wrong    one mistake away from a reference, and failing some test of any role
syntax   references with a character that does not parse

Which problems are used follows from a hash of their ids, not from what the meter can measure. Prints each miss and its reasons.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from slow_programs import SLOW

from rlaif.config import JudgeConfig, SandboxConfig
from rlaif.judge import make_judge
from rlaif.problems import load_problems
from rlaif.problems.mutate import mutants
from rlaif.problems.split import stable_hash
from rlaif.rewards import RewardEngine
from rlaif.sandbox import Job, Sandbox
from rlaif.types import Problem

EACH = 50
ROLES = ("shown", "graded", "held_out")
BAND = {"good": "good", "slow": "okay", "wrong": "poor", "syntax": "poor"}


class Case(NamedTuple):
    """One labelled program."""

    kind: str
    problem: Problem
    code: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", choices=("embedded", "none"), default="embedded")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with Sandbox(SandboxConfig(workers=options.workers)) as sandbox:
        cases = list(labelled(sandbox))
        start = time.perf_counter()
        engine = RewardEngine(sandbox, make_judge(JudgeConfig(kind=options.judge)), "hybrid")
        feedback = engine.score([case.problem for case in cases], [case.code for case in cases])
        seconds = time.perf_counter() - start
    misses = [(case, item) for case, item in zip(cases, feedback, strict=True) if item.band != BAND[case.kind]]
    for case, item in misses:
        print(f"{case.kind} {case.problem.id}: {item.band}, {item.reward}, efficiency {item.efficiency}\n  {' | '.join(item.reasons)[:300]}")
    right = {kind: sum(i.band == BAND[kind] for c, i in zip(cases, feedback, strict=True) if c.kind == kind) for kind in BAND}
    found = {"programs": len(cases), "in_the_right_band": len(cases) - len(misses), "by_kind": right, "each": EACH}
    found |= {"judge": options.judge, "seconds": round(seconds, 1)}
    found["misses"] = [f"{case.kind} {case.problem.id}: {item.band}" for case, item in misses]
    print(json.dumps(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def labelled(sandbox: Sandbox) -> Iterator[Case]:
    """The 200 programs; each label but `slow` is checked by running every test, and slow programs must be correct."""
    usable = [p for p in load_problems("builtin", split="train") if p.reference and p.entry_point and p.tests_of("graded")]
    problems = sorted(usable, key=lambda problem: stable_hash(problem.id))
    by_id = {problem.id: problem for problem in problems}
    yield from taken("good", problems, lambda p: [p.reference or ""], True, sandbox)
    yield from taken("wrong", problems[EACH:], lambda p: mutants(p.reference or "", 6, seed=0), False, sandbox)
    yield from [Case("syntax", p, broken(p.reference or "", n)) for n, p in enumerate(problems[2 * EACH : 3 * EACH])]
    hand = [Case("slow", by_id[name], code.lstrip()) for name, code in SLOW.items() if name in by_id]
    for case in hand:
        report = next(sandbox.run_many([Job(case.problem, case.code, ROLES)]))
        assert report.all_passed, (case.problem.id, report)
    yield from hand
    rest = [p for p in problems[3 * EACH :] if p.id not in SLOW]
    yield from taken("slow", rest, again_and_again, True, sandbox, EACH - len(hand))


def taken(
    kind: str, problems: list[Problem], codes: Callable[[Problem], list[str]], passing: bool, sandbox: Sandbox, count: int = EACH
) -> Iterator[Case]:
    """The first program of each problem that passes (or fails) all tests, of the first `count` problems that have one."""
    found = 0
    for problem in problems:
        for code in codes(problem):
            if next(sandbox.run_many([Job(problem, code, ROLES)])).all_passed is passing:
                yield Case(kind, problem, code)
                found += 1
                break
        if found == count:
            return


def broken(reference: str, number: int) -> str:
    """The reference without one character, or with one too many, so that it does not parse."""
    for candidate in (reference.replace(":\n", "\n", 1), reference.replace("(", "", 1), reference.rstrip() + ")", reference + "  x ="):
        options = (candidate, f"{reference}\nprint(")
        try:
            ast.parse(options[number % 2])
        except SyntaxError:
            return options[number % 2]
    raise AssertionError(reference)


def again_and_again(problem: Problem) -> list[str]:
    """The reference, worked out again for each element of its first collection (or as often as its first integer says)."""
    tests = [test.input for test in problem.tests if test.form == "call"]
    try:
        call = ast.parse(tests[0]).body[0].value  # type: ignore[attr-defined]
        definition = next(n for n in ast.parse(problem.reference or "").body if isinstance(n, ast.FunctionDef) and n.name == problem.entry_point)
    except (IndexError, SyntaxError, AttributeError, StopIteration):
        return []
    if not isinstance(call, ast.Call) or definition.args.defaults or definition.args.vararg or definition.args.kwonlyargs:
        return []
    names = [argument.arg for argument in definition.args.args]
    try:
        values = [ast.literal_eval(argument) for argument in call.args]
    except ValueError:
        return []
    times = next((f"len({n})" for n, v in zip(names, values, strict=False) if isinstance(v, list | tuple | str | dict) and len(v) > 1), None)
    times = times or next((n for n, v in zip(names, values, strict=False) if type(v) is int), None)
    if times is None:
        return []
    helper = (problem.reference or "").replace(f"{problem.entry_point}(", "worked_out(")
    arguments = ", ".join(names)
    return [
        f"import copy\n\n{helper}\n\ndef {problem.entry_point}({arguments}):\n    answer = worked_out(*copy.deepcopy(({arguments},)))\n"
        f"    for _ in range({times}):\n        answer = worked_out(*copy.deepcopy(({arguments},)))\n    return answer\n"
    ]


if __name__ == "__main__":
    main()
