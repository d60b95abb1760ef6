"""`rlaif judge`: AI feedback on its own (`score`), how far it can be trusted (`eval`), and a judge of one's own (`train`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.cli.flags import CommandLine, Positional
from rlaif.cli.group import run_group
from rlaif.cli.reward import Entry, chunks, open_input, read_entries
from rlaif.config import JudgeConfig, SandboxConfig, Settings
from rlaif.errors import UsageError
from rlaif.types import DIFFICULTIES, JudgeReport, Problem

if TYPE_CHECKING:
    from rlaif.judge import Judge
    from rlaif.sandbox import Sandbox


class ScoreConfig(Settings):
    """Which judge."""

    judge: JudgeConfig = JudgeConfig()


class EvalJudgeConfig(ScoreConfig):
    """Which judge, and how its labels are had."""

    sandbox: SandboxConfig = SandboxConfig()


SCORE = CommandLine(
    "rlaif judge score",
    "What the judge thinks of code that exists already: a belief in [0, 1] that it is right, and a score per principle.",
    "rlaif judge score solutions.jsonl --json",
    ScoreConfig,
    positionals=(Positional("FILE", "a JSONL file as for `rlaif reward`, or - for standard input"),),
    switches={"json": "One JSON object a line on stdout, prose on stderr."},
)

EVAL = CommandLine(
    "rlaif judge eval",
    "How far a judge can be trusted: AUROC, pair accuracy, ECE and Brier score, in all and per difficulty.",
    "rlaif judge eval solutions.jsonl",
    EvalJudgeConfig,
    positionals=(Positional("FILE", "a JSONL file as for `rlaif reward`, or - for standard input"),),
    switches={"json": "The figures as JSON on stdout, prose on stderr."},
    details='A line is labelled by its own "correct" (true or false), or else by running its tests. Answers to one prompt make pairs.',
)


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    commands = {
        "score": ("score code that exists already", _score),
        "eval": ("how far its scores can be trusted, on labelled code", _eval),
        "train": ("train a judge of your own on code labelled by running it", _train),
    }
    return run_group("rlaif judge", "The judge that gives AI feedback.", "rlaif judge score solutions.jsonl --json", commands, argv)


def _score(argv: Sequence[str]) -> int:
    parsed = SCORE.parse(argv)
    name, as_json = parsed.word("FILE") or "-", "json" in parsed.switches
    with ExitStack() as stack:
        entries = read_entries(name, open_input(name, stack), needs_tests=False)
        judge = _asked_judge(parsed.settings)
        failed = total = 0
        for entry, report in score_entries(entries, judge):
            total += 1
            failed += report.score is None
            print(json.dumps(row(entry, report)) if as_json else _line(entry, report), flush=True)
    print(f"{total} judged by {judge.name}" + (f", {failed} without a score" if failed else ""), file=sys.stderr if as_json else sys.stdout)
    return 0


def _train(argv: Sequence[str]) -> int:
    from rlaif.cli.judge_train import run_train

    return run_train(argv)


def _eval(argv: Sequence[str]) -> int:
    parsed = EVAL.parse(argv)
    name, as_json = parsed.word("FILE") or "-", "json" in parsed.switches
    with ExitStack() as stack:
        entries = read_entries(name, open_input(name, stack), needs_tests=False)
        judge = _asked_judge(parsed.settings)
        from rlaif.sandbox import Sandbox

        sandbox = stack.enter_context(Sandbox(parsed.settings.sandbox))
        items: list[Labelled] = []
        left_out = 0
        for entry, report in score_entries(entries, judge):
            label = None if entry.problem is None else _label(entry, entry.problem, sandbox)
            if label is None or entry.problem is None or report.score is None:
                left_out += 1
            else:
                items.append(Labelled(report.score, label, entry.problem.difficulty, entry.problem.prompt))
    if not items:
        raise UsageError(f"No line of {name} could be used", "a line needs a label (or tests) and a score", '"correct": true, or tests')
    levels = {level: [item for item in items if item.difficulty == level] for level in DIFFICULTIES}
    found = {"judge": judge.name, "left_out": left_out, "all": figures(items)} | {level: figures(some) for level, some in levels.items() if some}
    if as_json:
        print(json.dumps(found))
        return 0
    print(f"{judge.name}, on {len(items)} labelled programs" + (f" ({left_out} lines left out)" if left_out else ""))
    for part, numbers in found.items():
        if isinstance(numbers, dict):
            rates = {key: value for key, value in numbers.items() if key not in ("count", "correct")}
            shown = "  ".join(f"{key} {'-' if value is None else f'{value:.3f}'}" for key, value in rates.items())
            print(f"  {part:<7} {shown}  ({numbers['count']} programs, {numbers['correct']} correct)")
    return 0


class Labelled(NamedTuple):
    """One program: what the judge believes, and whether it is right."""

    score: float
    correct: bool
    difficulty: str
    group: str


def figures(items: Sequence[Labelled]) -> dict[str, float | int | None]:
    """The figures of a judge on these programs; None where they cannot be had (all right, all wrong, or no pair)."""
    from rlaif.judge import calibrate

    scores, labels = [item.score for item in items], [item.correct for item in items]
    values = {
        "auroc": calibrate.auroc(scores, labels),
        "pair_accuracy": calibrate.pair_accuracy(scores, labels, [item.group for item in items]),
        "ece": calibrate.ece(scores, labels),
        "brier": calibrate.brier(scores, labels),
    }
    known = {key: None if value != value else round(value, 6) for key, value in values.items()}
    return known | {"count": len(items), "correct": sum(labels)}


def _label(entry: Entry, problem: Problem, sandbox: Sandbox) -> bool | None:
    """Whether the code is right; None if neither the line nor a test can say."""
    if entry.correct is not None or not problem.tests:
        return entry.correct
    report = sandbox.run(problem, entry.code)
    return None if report.outcome == "infra_failure" else report.all_passed


def _asked_judge(config: ScoreConfig) -> Judge:
    if config.judge.kind == "none":
        raise UsageError("There is no judge to ask", "--judge none was given", "--judge embedded, local or api")
    from rlaif.judge import make_judge

    judge = make_judge(config.judge)
    assert judge is not None
    return judge


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
