"""`rlaif problems`: what a set holds, whether it is fit to train on, and the set in our own layout."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlaif.cli.flags import CommandLine, Parsed, Positional
from rlaif.cli.group import run_group
from rlaif.cli.guard import suggestion
from rlaif.config import SandboxConfig, Settings
from rlaif.errors import RunFailed, UsageError
from rlaif.problems import load_problems, pass_rates_by_model, problem_to_dict
from rlaif.problems.export import export_problems, export_row
from rlaif.runs.text import printable
from rlaif.types import Difficulty, Problem, Split

SET = Positional("NAME", "`builtin`, `builtin/TOPIC`, a data set's name, or a file (default: builtin)", required=False)


class ProblemSetConfig(Settings):
    """Which problems of the set."""

    split: Literal["train", "validation", "test", "all"] = "all"
    topic: str | None = None
    """Only this topic."""
    difficulty: Difficulty | None = None
    """Only this difficulty."""
    limit: int | None = Field(None, ge=1)
    """At most so many, the first ones."""


class CheckConfig(ProblemSetConfig):
    """Which problems of the set, and how they are run."""

    mutants: int = Field(5, ge=0)
    """Broken variants of each reference that the tests must catch (0: run the references only)."""
    sandbox: SandboxConfig = SandboxConfig()


class ExportConfig(ProblemSetConfig):
    """Which problems of the set, in which layout, and where they go."""

    format: Literal["rlaif", "trl", "verl", "openrlhf", "verifiers"] = "rlaif"
    """rlaif: our own layout, to edit and to train on; the others: the rows that this trainer reads, without held-out tests."""
    out: Path | None = None
    """The file to write; default: standard output. For another trainer also .parquet, which verl wants."""


class GenerateConfig(Settings):
    """Which fresh problems."""

    family: tuple[str, ...] = ()
    """Only these families (A,B,...); default: all of them in turn. --list names them."""
    n: int = Field(10, ge=1)
    """How many, all different."""
    seed: int = 0
    """The same seed gives the same problems."""
    split: Split = "train"
    """The split that they are marked with."""
    out: Path | None = None
    """The file to write; default: standard output."""


GENERATE = CommandLine(
    "rlaif problems generate",
    "Fresh problems from procedural families, each with wording, reference and tests of its own.",
    "rlaif problems generate --family pipeline,grid_paths -n 20 --seed 1 --out fresh.jsonl",
    GenerateConfig,
    switches={"force": "Write over a file that exists.", "list": "Only name the families."},
)
LIST = CommandLine(
    "rlaif problems list",
    "The problems of a set, one a line, or how many there are of each kind.",
    "rlaif problems list --topic strings --limit 5",
    ProblemSetConfig,
    positionals=(SET,),
    switches={"json": "One JSON object a line.", "count": "Only the numbers by split, topic and difficulty."},
)
CHECK = CommandLine(
    "rlaif problems check",
    "Run every reference solution against every test, and broken variants of it that must fail.",
    "rlaif problems check builtin --limit 10",
    CheckConfig,
    positionals=(SET,),
    switches={"json": "The findings as JSON on stdout, prose on stderr."},
)
EXPORT = CommandLine(
    "rlaif problems export",
    "The set as JSONL in this project's layout, with the role of every test, or as the rows that another trainer reads.",
    "rlaif problems export builtin --difficulty easy --out my_problems.jsonl",
    ExportConfig,
    positionals=(SET,),
    switches={"force": "Write over a file that exists."},
)


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    commands = {
        "list": ("what a set holds", _list),
        "check": ("whether its references pass and its tests can tell", _check),
        "export": ("the set as JSONL, to edit, or as another trainer's rows", _export),
        "generate": ("fresh problems without end, from procedural families", _generate),
        "more-tests": ("tests that a language model writes and a gate admits", _more_tests),
    }
    return run_group("rlaif problems", "Problem sets: the built-in ones, public ones by name, and files.", "rlaif problems list", commands, argv)


def _more_tests(argv: Sequence[str]) -> int:
    from rlaif.cli.problems_more import run as more_tests

    return more_tests(argv)


def choose(name: str | None, config: ProblemSetConfig) -> list[Problem]:
    """The problems that the flags name, in the set's order. Raises UsageError if none is left."""
    split: Split | None = None if config.split == "all" else config.split
    problems = load_problems(name or "builtin", split=split)
    kept = [one for one in problems if config.topic in (None, one.topic) and config.difficulty in (None, one.difficulty)]
    if not kept:
        topics = ", ".join(sorted({one.topic for one in problems}))
        raise UsageError(f"No problem of {name or 'builtin'} is left", f"its topics are {topics}", "other --topic, --difficulty or --split")
    return kept[: config.limit]


def refuse_to_write_over(path: Path | None, parsed: Parsed[Any]) -> None:
    """Raises UsageError for a file that exists, but for --force."""
    if path is not None and path.exists() and "force" not in parsed.switches:
        raise UsageError(f"{path} exists", "", "--force to write over it, or another --out")


def _list(argv: Sequence[str]) -> int:
    parsed = LIST.parse(argv)
    problems = choose(parsed.word("NAME"), parsed.settings)
    if "count" in parsed.switches:
        counts = {key: dict(sorted(Counter(getattr(one, key) for one in problems).items())) for key in ("split", "difficulty", "topic")}
        if "json" in parsed.switches:
            print(json.dumps({"problems": len(problems)} | counts))
            return 0
        print(f"{len(problems)} problems")
        for key, found in counts.items():
            print(f"  {key}: " + ", ".join(f"{name} {count}" for name, count in found.items()))
        return 0
    measured = {model: found for model, found in pass_rates_by_model().items() if any(one.id in found for one in problems)}
    for one in problems:
        rates = {model: found[one.id] for model, found in measured.items() if one.id in found}
        if "json" in parsed.switches:
            tests = dict(Counter(test.role for test in one.tests))
            fields = {"id": one.id, "topic": one.topic, "difficulty": one.difficulty, "split": one.split, "entry_point": one.entry_point}
            print(json.dumps(fields | {"tests": tests, "reference": one.reference is not None, "pass_rates": rates, "prompt": one.prompt}))
        else:
            prompt = printable(" ".join(one.prompt.split()), 1, 90)  # a stranger's text, which must not steer the terminal
            solved = "".join(f"  {model} {rate:.0%}" for model, rate in rates.items())
            print(f"{printable(one.id, 1)}  {one.difficulty}  {one.split}  {len(one.tests)} tests{solved}  {prompt}")
    return 0


def _export(argv: Sequence[str]) -> int:
    parsed = EXPORT.parse(argv)
    problems = choose(parsed.word("NAME"), parsed.settings)
    path, format = parsed.settings.out, parsed.settings.format
    refuse_to_write_over(path, parsed)
    if path is not None and format != "rlaif":
        export_problems(problems, format, path)
    else:
        rows = (problem_to_dict(one) if format == "rlaif" else export_row(one, format) for one in problems)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if path is None:
            sys.stdout.writelines(lines)
            return 0
        path.write_text("".join(lines), encoding="utf-8")
    print(f"{len(problems)} problems written to {path}")
    return 0


def _generate(argv: Sequence[str]) -> int:
    from rlaif.problems.generate import FAMILIES, generate

    parsed = GENERATE.parse(["--n" if word == "-n" else word for word in argv])
    if "list" in parsed.switches:
        print("\n".join(FAMILIES))
        return 0
    config = parsed.settings
    for name in config.family:
        if name not in FAMILIES:
            raise UsageError(f"No family is called '{name}'", "", suggestion(name, list(FAMILIES)) or f"one of {', '.join(FAMILIES)}")
    refuse_to_write_over(config.out, parsed)
    try:
        problems = generate(config.n, config.seed, config.family or None)
    except ValueError as error:
        raise UsageError("Not so many can be made", str(error), "a smaller -n, or more families") from None
    lines = [json.dumps(problem_to_dict(replace(one, split=config.split)), ensure_ascii=False) + "\n" for one in problems]
    if config.out is None:
        sys.stdout.writelines(lines)
        return 0
    config.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(problems)} problems written to {config.out}")
    return 0


def _check(argv: Sequence[str]) -> int:
    parsed = CHECK.parse(argv)
    config = parsed.settings
    problems = choose(parsed.word("NAME"), config)
    from rlaif.problems.check import check_labels, check_problems
    from rlaif.sandbox import Sandbox

    with Sandbox(config.sandbox) as sandbox:
        findings = check_problems(problems, sandbox, mutants_per_problem=config.mutants)
    findings += check_labels(problems, pass_rates_by_model())
    wrong = len({finding.problem_id for finding in findings if finding.is_error})
    if "json" in parsed.switches:
        print(json.dumps({"problems": len(problems), "with_errors": wrong, "findings": [asdict(one) | {"error": one.is_error} for one in findings]}))
    for one in findings if "json" not in parsed.switches else ():
        test = f" (test: {printable(one.test, 1, 120)})" if one.test else ""
        print(f"{'ERROR' if one.is_error else 'note '} {one.problem_id}: {one.kind.replace('_', ' ')}: {printable(one.message, 3)}{test}")
    if wrong:
        raise RunFailed(
            f"{wrong} of {len(problems)} problems are not fit to train on", "the findings above say why", "correct them, or leave them out"
        )
    print(f"{len(problems)} problems checked: no error", file=sys.stderr if "json" in parsed.switches else sys.stdout)
    return 0
