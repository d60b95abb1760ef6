"""`rlaif`: one word chooses the command, which is imported only then. The help needs nothing but this file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from rlaif import __version__
from rlaif.cli.guard import guarded, suggestion
from rlaif.errors import UsageError

COMMANDS = {
    "train": "train a model from AI feedback and execution",
    "evaluate": "pass@k of a model, or of completions that exist already",
    "chat": "type a task, see the code, run a test on it, ask the judge",
    "judge": "score, eval, train: the judge that gives AI feedback",
    "reward": "score code that exists already, one JSON object a line",
    "serve": "the reward over HTTP, for other trainers",
    "problems": "list, check, export, generate, more-tests: the problem sets",
    "prefer": "preference pairs from a run, for DPO and reward models",
    "report": "one HTML file about a run, or two runs compared",
    "doctor": "what this machine has: versions, device, sandbox, models, judge",
}
"""In the order of the help. One whose module `rlaif.cli.NAME` is not installed is left out."""

HELP = """\
usage: rlaif COMMAND [FLAGS]

Reinforcement learning from AI feedback for code-writing language models.

Commands:
{commands}

Example:
  rlaif doctor

rlaif COMMAND --help shows the command's flags and an example. --debug shows the traceback of an error.
Exit codes: 0 done, 1 failed, 2 usage, 3 the machine lacks something, 4 below --fail-under, 130 interrupted."""


def available() -> dict[str, str]:
    """The commands that are there, with a line each."""
    return {name: line for name, line in COMMANDS.items() if find_spec(f"rlaif.cli.{name}") is not None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and never raises for what a user can do."""
    return guarded(_dispatch, list(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: Sequence[str]) -> int:
    commands = available()
    words = [word for word in argv if word != "--debug"]
    match words[:1]:
        case [] | ["-h" | "--help" | "help"]:
            width = max(map(len, commands))
            print(HELP.format(commands="\n".join(f"  {name:<{width}}  {line}" for name, line in commands.items())))
            return 0
        case ["--version" | "-V"]:
            print(f"rlaif {__version__}")
            return 0
        case [name] if name in commands:
            rest = list(argv)
            rest.remove(name)
            return import_module(f"rlaif.cli.{name}").run(rest)
        case [name]:
            raise UsageError(f"Unknown command '{name}'", "", suggestion(name, list(commands), "rlaif ") or "rlaif --help")
    raise AssertionError(words)
