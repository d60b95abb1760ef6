"""`rlaif judge`: AI feedback on its own (`score`), how far it can be trusted (`eval`), and a judge of one's own (`train`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rlaif.cli.flags import CommandLine, Positional
from rlaif.cli.group import run_group
from rlaif.cli.reward import Entry, chunks, open_input, read_entries
from rlaif.config import JudgeConfig, Settings
from rlaif.errors import UsageError
from rlaif.types import JudgeReport

if TYPE_CHECKING:
    from rlaif.judge import Judge


class ScoreConfig(Settings):
    """Which judge."""

    judge: JudgeConfig = JudgeConfig()


SCORE = CommandLine(
    "rlaif judge score",
    "What the judge thinks of code that exists already: a belief in [0, 1] that it is right, and a score per principle.",
    "rlaif judge score solutions.jsonl --json",
    ScoreConfig,
    positionals=(Positional("FILE", "a JSONL file as for `rlaif reward`, or - for standard input"),),
    switches={"json": "One JSON object a line on stdout, prose on stderr."},
)


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    commands = {
        "score": ("score code that exists already", _score),
    }
    return run_group("rlaif judge", "The judge that gives AI feedback.", "rlaif judge score solutions.jsonl --json", commands, argv)


def _score(argv: Sequence[str]) -> int:
    parsed = SCORE.parse(argv)
    if parsed.settings.judge.kind == "none":
        raise UsageError("There is no judge to ask", "--judge none was given", "--judge embedded, local or api")
    name, as_json = parsed.word("FILE") or "-", "json" in parsed.switches
    with ExitStack() as stack:
        entries = read_entries(name, open_input(name, stack), needs_tests=False)
        from rlaif.judge import make_judge

        judge = make_judge(parsed.settings.judge)
        assert judge is not None
        failed = total = 0
        for entry, report in score_entries(entries, judge):
            total += 1
            failed += report.score is None
            print(json.dumps(row(entry, report)) if as_json else _line(entry, report), flush=True)
    print(f"{total} judged by {judge.name}" + (f", {failed} without a score" if failed else ""), file=sys.stderr if as_json else sys.stdout)
    return 0


def score_entries(entries: Iterator[Entry | None], judge: Judge) -> Iterator[tuple[Entry, JudgeReport]]:
    """Each entry with what the judge said, in order; a line that cannot be used has an error in place of a score."""
    from rlaif.judge import JudgeItem

    for chunk in chunks(entries):
        items = [JudgeItem(entry.problem, entry.code) for entry in chunk if entry.problem is not None]
        reports = iter(judge.score(items) if items else [])
        for entry in chunk:
            yield entry, next(reports) if entry.problem is not None else JudgeReport(None, error=f"line {entry.line}: {entry.why}")


def row(entry: Entry, report: JudgeReport) -> dict[str, Any]:
    """The output object of one line."""
    return {"id": entry.id, "score": report.score, "principles": report.principles, "error": report.error}


def _line(entry: Entry, report: JudgeReport) -> str:
    from rlaif.runs.text import printable

    name = printable(str(entry.id), 1, 60) if entry.id is not None else f"line {entry.line}"
    if report.score is None:
        return f"{name}: no score: {printable(report.error or '', 1)}"
    return f"{name}: {report.score:.2f}  " + "  ".join(f"{key} {value:.2f}" for key, value in report.principles.items())
