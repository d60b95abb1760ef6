"""`rlaif reward FILE.jsonl`: score code that exists already. One object a line in, one a line out, in the same order.

Memory does not grow with the file: lines are read, scored and written a chunk at a time. A line that cannot be used gets the outcome
`invalid_input` with its number, and the others are scored.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import model_validator

from rlaif.cli.flags import CommandLine, Positional
from rlaif.config import JudgeConfig, SandboxConfig, Settings
from rlaif.errors import ProblemFileError, UsageError
from rlaif.types import Feedback, FeedbackMode, Problem

if TYPE_CHECKING:
    from rlaif.rewards import RewardEngine

CHUNK_LINES = 256
READ_BYTES = 2**16
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is invalid input: whoever reads a stranger's file must not hold all of it."""


class RewardConfig(Settings):
    """How given code is scored."""

    feedback: FeedbackMode = "hybrid"
    """hybrid: tests gate the judge; execution: tests alone, no model needed; ai: the judge alone."""
    judge: JudgeConfig = JudgeConfig()
    sandbox: SandboxConfig = SandboxConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RewardConfig:
        if self.feedback == "ai" and self.judge.kind == "none":
            raise ValueError("feedback 'ai' needs a judge: choose --judge embedded, local or api")
        return self


LINE = CommandLine(
    "rlaif reward",
    "Score code that exists already: one JSON object a line in, one a line out, in the same order.",
    "rlaif reward solutions.jsonl --json --feedback execution",
    RewardConfig,
    positionals=(Positional("FILE", "a JSONL file, or - for standard input"),),
    switches={"json": "One JSON object a line on stdout, prose on stderr."},
    details=(
        'A line holds "prompt", "solution" and its tests: "test_input" and "expected_output", or "tests": [{"input": ..., "expected": ...}],'
        ' or "test_code" and "entry_point" (HumanEval\'s form). Without tests the judge alone grades it. "id" is handed through.'
    ),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file: a problem with its code, or why there is none."""

    line: int
    id: Any
    problem: Problem | None
    code: str = ""
    why: str = ""
    correct: bool | None = None
    """A label that the line brings along (`rlaif judge eval`)."""


def run(argv: Sequence[str]) -> int:
    """Returns 0 once every line is answered, also where some were bad; raises RlaifError if nothing could be started."""
    parsed = LINE.parse(argv)
    config, name = parsed.settings, parsed.word("FILE") or "-"
    show = _print_json if "json" in parsed.switches else _print_text
    outcomes: Counter[str] = Counter()
    first_bad: str | None = None
    with ExitStack() as stack:
        needs_tests = config.feedback == "execution" or config.judge.kind == "none"
        entries = read_entries(name, open_input(name, stack), needs_tests)
        engine = make_engine(config, stack)
        for entry, feedback in score_entries(entries, engine):
            show(entry, feedback)
            outcomes[feedback.outcome] += 1
            if feedback.outcome == "invalid_input" and first_bad is None:
                first_bad = feedback.reasons[0]
    out = sys.stderr if "json" in parsed.switches else sys.stdout
    print(summary(outcomes, first_bad), file=out)
    return 0


def make_engine(config: RewardConfig, stack: ExitStack) -> RewardEngine:
    """The sandbox, the judge and the formula, as the settings want them; torch is loaded only if a judge needs it."""
    from rlaif.rewards import RewardEngine
    from rlaif.sandbox import Sandbox

    judge = None
    if config.feedback != "execution" and config.judge.kind != "none":
        from rlaif.judge import make_judge

        judge = make_judge(config.judge)
    sandbox = None if config.feedback == "ai" else stack.enter_context(Sandbox(config.sandbox))
    return RewardEngine(sandbox, judge, config.feedback)


def score_entries(entries: Iterable[Entry | None], engine: RewardEngine) -> Iterator[tuple[Entry, Feedback]]:
    """Each entry with its feedback, in order."""
    for chunk in chunks(entries):
        good = [entry for entry in chunk if entry.problem is not None]
        scored = iter(engine.score([entry.problem for entry in good if entry.problem], [entry.code for entry in good]) if good else [])
        for entry in chunk:
            yield entry, next(scored) if entry.problem is not None else Feedback(None, "invalid_input", reasons=(f"line {entry.line}: {entry.why}",))


def read_entries(name: str, lines: Iterable[bytes | None], needs_tests: bool) -> Iterator[Entry | None]:
    """The lines as entries; None means "nothing more is waiting, answer what you have". Blank lines are skipped."""
    path = "standard input" if name == "-" else name
    number = 0
    for raw in lines:
        if raw is None:
            yield None
            continue
        number += 1
        if raw.strip():
            yield parse_line(raw, path, number, needs_tests)


def parse_line(raw: bytes, path: str, line: int, needs_tests: bool) -> Entry:
    """One line of the file. Never raises for what is in it."""
    from rlaif.problems import problem_from_dict

    if len(raw) > MAX_LINE_BYTES:
        return Entry(line, None, None, why=f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        obj = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return Entry(line, None, None, why=f"it is not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # not UTF-8, NaN, absurd numbers, absurd nesting
        return Entry(line, None, None, why=f"it cannot be read: {error}")
    identity = obj.get("id") if isinstance(obj, dict) else None
    try:
        problem = problem_from_dict(obj, path=path, line=line, all_graded=True)
    except ProblemFileError as error:
        return Entry(line, identity, None, why=_why(error))
    code = obj.get("solution")
    if not isinstance(code, str):
        return Entry(line, identity, None, why="field 'solution': it is missing" if code is None else "field 'solution': expected a string")
    if needs_tests and not problem.tests:
        return Entry(line, identity, None, why="it has no tests, and without a judge nothing else can grade it")
    label = obj.get("correct")
    return Entry(line, identity, problem, code, correct=label if isinstance(label, bool) else None)


def row(entry: Entry, feedback: Feedback) -> dict[str, Any]:
    """The output object of one line."""
    tests, judge, quality = feedback.tests, feedback.judge, feedback.quality
    out: dict[str, Any] = {} if entry.id is None else {"id": entry.id}
    out |= {"reward": feedback.reward, "outcome": feedback.outcome, "verified": feedback.verified, "band": feedback.band}
    out["tests"] = (
        {"passed": tests.passed, "total": tests.total} if tests else {"passed": 0, "total": len(entry.problem.tests) if entry.problem else 0}
    )
    out["judge"] = asdict(judge) if judge else None
    out["quality"] = asdict(quality) if quality else None
    return out | {"reasons": list(feedback.reasons)}


def summary(outcomes: Counter[str], first_bad: str | None) -> str:
    """ "3 lines: 2 scored, 1 invalid input (the first: line 2: it is not JSON)" """
    parts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in outcomes.most_common())
    total = outcomes.total()
    return f"{total} line{'' if total == 1 else 's'}{': ' if parts else ''}{parts}" + (f" (the first: {first_bad})" if first_bad else "")


# -- reading -------------------------------------------------------------------------------------------------------------------------


def open_input(name: str, stack: ExitStack) -> Iterator[bytes | None]:
    """The raw lines of a file, or of standard input as they come in. Raises UsageError if it cannot be opened."""
    if name == "-":
        return _waiting(sys.stdin.buffer)
    try:
        return _lines(stack.enter_context(Path(name).open("rb")))
    except OSError as error:
        raise UsageError(f"Cannot read {name}", error.strerror or str(error), "check the path; - reads standard input") from None


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines, each cut off just over MAX_LINE_BYTES; the rest of such a line is read and dropped."""
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        yield raw
        while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raw = stream.readline(MAX_LINE_BYTES + 1)


def _waiting(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines of a pipe, with None after each piece that came in: its writer may be waiting for our answers before it writes on.

    Unbuffered, and in this thread: a thread that is blocked in a buffered read makes the interpreter abort when Ctrl-C ends it.
    """
    rest, dropping = b"", False
    while piece := os.read(stream.fileno(), READ_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not dropping:
                yield line
            dropping = False
        if len(rest) > MAX_LINE_BYTES:  # told once that it is too long, and then dropped up to its end
            if not dropping:
                yield rest
            rest, dropping = b"", True
        yield None
    if rest and not dropping:
        yield rest


def chunks(entries: Iterable[Entry | None]) -> Iterator[list[Entry]]:
    """Entries to be answered together: CHUNK_LINES of them, fewer where the writer waits."""
    chunk: list[Entry] = []
    for entry in entries:
        if entry is not None:
            chunk.append(entry)
        if chunk and (entry is None or len(chunk) >= CHUNK_LINES):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _why(error: ProblemFileError) -> str:
    """The complaint on one line, without the file's name, which the reader knows."""
    field = f"field '{error.field}': " if error.field else ""
    return f"{field}{error.why}" + (f" ({error.try_next})" if error.try_next else "")


# -- writing -------------------------------------------------------------------------------------------------------------------------


def _print_json(entry: Entry, feedback: Feedback) -> None:
    print(json.dumps(row(entry, feedback)), flush=True)


def _print_text(entry: Entry, feedback: Feedback) -> None:
    from rlaif.runs.text import printable

    name = printable(str(entry.id), 1, 60) if entry.id is not None else f"line {entry.line}"
    reward = "-" if feedback.reward is None else f"{feedback.reward:.2f}"
    tests = f"{feedback.tests.passed}/{feedback.tests.total} tests" if feedback.tests else feedback.outcome.replace("_", " ")
    print(f"{name}: reward {reward}  {feedback.band or ''}  {tests}".rstrip(), flush=True)
    for reason in feedback.reasons:
        print(f"    {printable(reason, 3, 200)}")
