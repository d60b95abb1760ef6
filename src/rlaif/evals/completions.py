"""Score completions that exist already (`rlaif evaluate --completions FILE.jsonl`) in memory that does not grow with the file."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.errors import ProblemFileError, UsageError
from rlaif.evals.result import EvalResult, Protocol
from rlaif.evals.run import Runner, Tally, collect, evaluation_roles
from rlaif.problems import pysource
from rlaif.problems.prompting import last_code_block
from rlaif.types import Problem, TestReport

if TYPE_CHECKING:
    from rlaif.sandbox import Job

KEPT_BAD_LINES = 100
"""Bad lines are all counted, and the first so many are described: a file of nothing but bad lines must not fill the memory."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be scored. It is neither a pass nor a failure."""

    line: int
    why: str


@dataclass(frozen=True)
class CompletionScores:
    """The result over the problems that had completions, and the lines that could not be read."""

    result: EvalResult
    scored: int
    bad_lines: tuple[BadLine, ...]
    bad_count: int
    missing: tuple[str, ...]
    """Problems without a completion: they are not in the rate, and a published score would count them as failures."""

    def to_dict(self) -> dict[str, Any]:
        bad = [{"line": item.line, "why": item.why} for item in self.bad_lines]
        return self.result.to_dict() | {"scored": self.scored, "bad_lines": bad, "bad_count": self.bad_count, "missing": list(self.missing)}


def program_of(problem: Problem, completion: str) -> str:
    """The program that a completion stands for.

    It may be a whole program, a reply with a fenced block, or (HumanEval's form) what follows the prompt, indented as a body. The
    continuation keeps what it means behind `prompt`: the header and a docstring stand before it, so an indentation that would have
    been wrong there is wrong here, and an answer that says nothing is a function that returns None.
    """
    if "```" in completion and (block := last_code_block(completion)) is not None:
        completion = block
    name = problem.entry_point
    if name is None or pysource.defines(completion, name) or not problem.signature:
        return completion
    continued = f'{problem.signature}\n    """See the prompt."""\n{completion}'
    if not pysource.parses(continued) and _starts_over(completion, name):
        return completion  # a whole program with a syntax error: the error message should be about its own lines
    return continued


def _starts_over(text: str, name: str) -> bool:
    return any(line.startswith((f"def {name}(", f"async def {name}(", f"class {name}")) for line in text.splitlines())


def score_completions(
    path: Path,
    problems: Sequence[Problem],
    sandbox: Runner,
    k: tuple[int, ...] = (1,),
    *,
    name: str = "",
    split: str = "all",
    on_report: Callable[[int, Problem, TestReport], None] | None = None,
) -> CompletionScores:
    """Score a JSONL file of `{"task_id": ..., "completion": ...}` (or `solution`, a whole program), in any order, n a problem.

    A bad line (no JSON, a field missing, an unknown task) is reported by its number, and the others are scored.
    name, split: what `problems` are, for the result's protocol.
    Raises UsageError if the file cannot be opened or holds no line that can be scored.
    """
    from rlaif.sandbox import Job

    by_name = _index(problems)
    tallies: dict[str, Tally] = {}
    bad: list[BadLine] = []
    bad_count = 0
    pending: deque[tuple[int, Problem]] = deque()  # as long as the sandbox's look-ahead

    def jobs() -> Iterator[Job]:
        nonlocal bad_count
        for line, problem, completion in _read(path, by_name):
            if problem is None:
                bad_count += 1
                if len(bad) < KEPT_BAD_LINES:
                    bad.append(BadLine(line, completion))
                continue
            pending.append((line, problem))
            yield Job(problem, program_of(problem, completion), evaluation_roles(problem))

    start = time.perf_counter()
    scored = 0
    for report in sandbox.run_many(jobs()):
        line, problem = pending.popleft()
        tallies.setdefault(problem.id, Tally(problem)).add(report)
        scored += 1
        if on_report is not None:
            on_report(line, problem, report)
    if not scored:
        why = f"line {bad[0].line}: {bad[0].why}" if bad else "it is empty"
        raise UsageError(f"No line of {path} could be scored", why, 'write one {"task_id": ..., "completion": ...} a line')
    missing = tuple(problem.id for problem in problems if problem.id not in tallies)
    fewest = min(tally.row.samples + tally.row.infra for tally in tallies.values())
    most = max(tally.row.samples + tally.row.infra for tally in tallies.values())
    notes = [f"pass@{size} is over the problems with at least {size} completions" for size in k if fewest < size <= most]
    notes += [f"no pass@{size}: no problem has {size} completions, and {most} is the most that one has" for size in k if size > most]
    if missing:
        notes.append(f"{len(missing)} of {len(problems)} problems have no completion and are left out")
    if bad_count:
        notes.append(f"{bad_count} lines could not be read; the first is line {bad[0].line}: {bad[0].why}")
    protocol = Protocol(name or str(path), split, fewest, False, 0.0, 0, 0)
    result = collect(tallies.values(), str(path), protocol, k, 0.0, time.perf_counter() - start, sandbox.grade, tuple(notes))
    return CompletionScores(result, scored, tuple(bad), bad_count, missing)


def _read(path: Path, by_name: dict[str, Problem]) -> Iterator[tuple[int, Problem | None, str]]:
    """(line, problem, completion); a bad line gives (line, None, why)."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"Cannot read {path}", error.strerror or str(error), "check the path") from None
    with stream:
        for line, raw in enumerate(stream, 1):
            if raw.strip():
                yield line, *_parse(raw, by_name)


def _parse(raw: bytes, by_name: dict[str, Problem]) -> tuple[Problem | None, str]:
    try:
        obj = json.loads(raw)
    except json.JSONDecodeError as error:
        return None, f"it is not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # not UTF-8, absurd numbers, absurd nesting
        return None, f"it cannot be read: {error}"
    if not isinstance(obj, dict):
        return None, "expected a JSON object"
    task = obj.get("task_id", obj.get("id"))
    if not isinstance(task, str | int) or isinstance(task, bool):
        return None, "field 'task_id' is missing" if task is None else "field 'task_id' must be a string or a number"
    text = obj.get("completion", obj.get("solution"))
    if not isinstance(text, str):
        return None, "field 'completion' is missing" if text is None else "field 'completion' must be a string"
    problem = by_name.get(str(task).lower())
    return (problem, text) if problem is not None else (None, f"no problem is called {task!r}")


def _index(problems: Iterable[Problem]) -> dict[str, Problem]:
    """Problems by id, and by what follows the last slash where that is not ambiguous: MBPP's 2 is written 2 and Mbpp/2."""
    problems = list(problems)
    short = Counter(problem.id.lower().rpartition("/")[2] for problem in problems)
    index = {name: problem for problem in problems if short[name := problem.id.lower().rpartition("/")[2]] == 1}
    for problem in problems:
        if index.get(problem.id.lower(), problem) is not problem and index[problem.id.lower()].id.lower() == problem.id.lower():
            raise ProblemFileError("the problems", None, "id", f"{problem.id!r} is used twice")
        index[problem.id.lower()] = problem
    return index
