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
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rlaif.cli.flags import CommandLine, Positional
from rlaif.config import RewardConfig
from rlaif.errors import UsageError
from rlaif.rewards.rows import Entry, entry_of, row
from rlaif.types import Feedback

if TYPE_CHECKING:
    from rlaif.rewards import RewardEngine

CHUNK_LINES = 256
READ_BYTES = 2**16
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is invalid input: whoever reads a stranger's file must not hold all of it."""


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


def run(argv: Sequence[str]) -> int:
    """Returns 0 once every line is answered, also where some were bad; raises RlaifError if nothing could be started."""
    parsed = LINE.parse(argv)
    config, name = parsed.settings, parsed.word("FILE") or "-"
    from rlaif.rewards.engine import make_engine

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
    if len(raw) > MAX_LINE_BYTES:
        return Entry(line, None, None, why=f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        obj = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return Entry(line, None, None, why=f"it is not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # not UTF-8, NaN, absurd numbers, absurd nesting
        return Entry(line, None, None, why=f"it cannot be read: {error}")
    return entry_of(obj, path=path, line=line, needs_tests=needs_tests)


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
