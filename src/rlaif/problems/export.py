"""Write problems as the data sets that other trainers read, with everything a reward needs in each row.

What decides the reward travels as `problem`, a JSON string in our own layout; `integrations` reads it back. Held-out tests are left
out: they belong to the monitor and to evaluation, and a file for training is where they would leak.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif.errors import EnvironmentFailure, ProblemFileError, UsageError
from rlaif.problems.prompting import SYSTEM, task_text
from rlaif.problems.schema import problem_from_dict, problem_to_dict
from rlaif.types import Problem

Format = Literal["trl", "verl", "openrlhf", "verifiers"]
DATA_SOURCE = "rlaif"


def export_problems(problems: Sequence[Problem], format: Format, out: Path | str) -> int:
    """Write one row a problem to `out` (.jsonl, or .parquet, which verl wants); returns how many.

    trl:       prompt (messages), problem, problem_id: columns reach the reward function as lists
    verl:      data_source, prompt (messages), ability, reward_model.ground_truth (the problem), extra_info
    openrlhf:  input (text), label (the problem): the label comes back to the reward server
    verifiers: prompt (messages), answer (the problem), info

    The file appears whole or not at all. Raises UsageError for an unknown format or file name, or no problems.
    """
    out = Path(out)
    if format not in get_args(Format):
        raise UsageError(f"No export format '{format}'", "", f"one of {', '.join(get_args(Format))}")
    if out.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"Cannot tell what to write to {out}", "the name must end in .jsonl or .parquet", f"--out {out.stem}.jsonl")
    if not problems:
        raise UsageError("Nothing to export", "there are no problems", "choose another --problems or --split")
    rows = [export_row(problem, format) for problem in problems]
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_parquet(rows, partial) if out.suffix == ".parquet" else _write_jsonl(rows, partial)
        partial.replace(out)
    except OSError as error:
        raise UsageError(f"Cannot write {out}", error.strerror or str(error), "choose another --out") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return len(rows)


def export_row(problem: Problem, format: Format) -> dict[str, Any]:
    """One problem as one row of that trainer's data set."""
    messages, sealed = chat(problem), seal(problem)
    match format:
        case "trl":
            return {"prompt": messages, "problem": sealed, "problem_id": problem.id}
        case "verl":
            return {
                "data_source": DATA_SOURCE,
                "prompt": messages,
                "ability": "code",
                "reward_model": {"style": "rule", "ground_truth": sealed},
                "extra_info": {"problem_id": problem.id, "split": problem.split, "difficulty": problem.difficulty, "topic": problem.topic},
            }
        case "openrlhf":
            return {"input": messages[-1]["content"], "label": sealed}
        case "verifiers":
            info = {"problem_id": problem.id, "difficulty": problem.difficulty, "topic": problem.topic}
            return {"prompt": messages, "answer": sealed, "info": info}


def chat(problem: Problem) -> list[dict[str, str]]:
    """The task as messages. These trainers open no fence for the policy, so the request says how to answer."""
    parts = [task_text(problem)]
    supplied = "\n".join(part.strip() for part in (problem.preamble, problem.signature) if part.strip())
    if supplied:
        parts.append(f"Begin with:\n```python\n{supplied}\n```")
    elif problem.entry_point is not None:
        parts.append(f"Call it `{problem.entry_point}`.")
    else:
        parts.append("Write a whole program that reads standard input and prints the answer.")
    parts.append("Answer with one Python code block and nothing else.")
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n\n".join(parts)}]


def seal(problem: Problem) -> str:
    """What the reward needs, as one line of JSON, without held-out tests."""
    kept = tuple(test for test in problem.tests if test.role != "held_out")
    return json.dumps(problem_to_dict(replace(problem, tests=kept)), ensure_ascii=False)


def unseal(text: str) -> Problem:
    """The problem of an exported row. Raises ProblemFileError for anything else."""
    try:
        obj = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ProblemFileError(
            "the row's problem", None, None, f"it is not JSON: {error}", "make the data set with `rlaif problems export`"
        ) from None
    return problem_from_dict(obj, path="the row's problem", line=None)


def _write_jsonl(rows: Iterable[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise EnvironmentFailure("Parquet files need the package `datasets`", str(error), "pip install 'rlaif[data]', or export to .jsonl") from None
    datasets.Dataset.from_list(rows).to_parquet(str(path))
