"""HumanEval and sanitised MBPP as problems whose tests run unmodified. The files lie under RLAIF_SHARED; tests skip without."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

from rlaif.types import Problem, TestCase


def folder() -> Path | None:
    root = os.environ.get("RLAIF_SHARED")
    path = Path(root) / "data" if root else None
    return path if path and (path / "humaneval.jsonl").exists() else None


def _rows(name: str) -> list[dict]:
    root = folder()
    assert root is not None
    return [json.loads(line) for line in (root / name).read_text(encoding="utf-8").splitlines()]


def _bodies_gone(source: str) -> str:
    """Every function's body replaced by `pass`."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def humaneval() -> list[tuple[Problem, str, str]]:
    """(problem, canonical solution, stub)."""
    out = []
    for row in _rows("humaneval.jsonl"):
        entry = row["entry_point"]
        head = row["prompt"]
        test = (TestCase("graded", row["test"], "", "code"),)
        # What comes before the function's own def is the prompt's: imports and helpers.
        start = ast.parse(head + "    pass\n")
        node = next(node for node in start.body if isinstance(node, ast.FunctionDef) and node.name == entry)
        preamble = "".join(head.splitlines(keepends=True)[: node.lineno - 1])
        problem = Problem(row["task_id"], head, test, entry, preamble=preamble, source="humaneval", imported=True)
        solution = head + row["canonical_solution"]
        out.append((problem, solution, preamble + f"def {entry}(*args, **kwargs):\n    pass\n"))
    return out


def mbpp() -> list[tuple[Problem, str, str]]:
    """(problem, reference, stub)."""
    out = []
    for row in _rows("mbpp_sanitized.jsonl"):
        calls = [node for node in ast.walk(ast.parse(row["test_list"][0])) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        defined = {node.name for node in ast.walk(ast.parse(row["code"])) if isinstance(node, ast.FunctionDef)}
        entry = next(node.func.id for node in calls if node.func.id in defined)
        source = "\n".join([*row["test_imports"], *row["test_list"]])
        problem = Problem(f"mbpp/{row['task_id']}", row["prompt"], (TestCase("graded", source, "", "code"),), entry, source="mbpp", imported=True)
        out.append((problem, row["code"], _bodies_gone(row["code"])))
    return out
