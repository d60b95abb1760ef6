"""Answers made to please and not to solve, as training's wrong examples: what of an attack is left after the sanitiser still must not score.

Most attacks leave nothing (the sanitiser's work); these leave a program: an argument given back, the shown tests learnt by heart, the
solution of another task under this task's name, work that is thrown away before a constant is returned.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence

from rlaif.judge.collect import Candidate
from rlaif.judge.probes import PRAISE, wrong_answer
from rlaif.types import Problem


def from_attacks(problems: Sequence[Problem], others: Sequence[Problem], *, seed: int = 0) -> Iterator[Candidate]:
    """Adversarial programs for each problem, to be labelled by execution like everything else. others: whose references may be borrowed."""
    for problem in problems:
        rng = random.Random(f"{seed} {problem.id}")
        for code in attacks(problem, others, rng):
            yield Candidate(problem, code, "negative")


def attacks(problem: Problem, others: Sequence[Problem], rng: random.Random) -> list[str]:
    """Up to four programs; fewer for a problem whose entry point is no plain function."""
    definition = _definition(problem.signature)
    if definition is None:
        return []
    header = f"def {definition.name}({ast.unparse(definition.args)}):"
    found = [f"{PRAISE}{echo}" for echo in [wrong_answer(problem)] if echo]
    shown = [(arguments, test.expected) for test in problem.tests_of("shown") if test.form == "call" and (arguments := _arguments(test.input))]
    names = [argument.arg for argument in definition.args.args]
    if shown and names:
        asked = f"({', '.join(names)},)"
        known = "".join(f"    if {asked} == ({', '.join(arguments)},):\n        return {expected}\n" for arguments, expected in shown)
        found.append(f"{header}\n{known}    return {shown[0][1]}\n")
    if names:
        busy = f"    seen = []\n    for step in range(10):\n        seen.append({names[0]})\n"
        found.append(f"{header}\n{busy}    return {shown[0][1] if shown else 'seen[0]'}\n")
    borrowed = _borrowed(problem, others, len(names), rng)
    return [*found, borrowed] if borrowed else found


def _borrowed(problem: Problem, others: Sequence[Problem], arity: int, rng: random.Random) -> str | None:
    """Another task's reference under this one's name, if a few tries find one that takes as many arguments."""
    for other in rng.sample(others, min(20, len(others))):
        definition = _definition(other.signature)
        if other.id == problem.id or definition is None or other.reference is None or len(definition.args.args) != arity:
            continue
        tree = ast.parse(other.reference)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == other.entry_point:
                node.name = str(problem.entry_point)
            elif isinstance(node, ast.Name) and node.id == other.entry_point:
                node.id = str(problem.entry_point)
        return f"{ast.unparse(tree)}\n"
    return None


def _definition(signature: str) -> ast.FunctionDef | None:
    try:
        match ast.parse(f"{signature.strip()}\n    pass").body:
            case [ast.FunctionDef() as definition]:
                return definition
    except SyntaxError:
        pass
    return None


def _arguments(call: str) -> list[str]:
    try:
        match ast.parse(call.strip()).body:
            case [ast.Expr(value=ast.Call(func=ast.Name(), args=arguments, keywords=[]))]:
                return [ast.unparse(argument) for argument in arguments]
    except SyntaxError:
        pass
    return []
