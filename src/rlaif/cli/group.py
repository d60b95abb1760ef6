"""Commands with commands of their own (`rlaif judge score`): the second word chooses, and the help names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rlaif.cli.guard import suggestion
from rlaif.errors import UsageError

Subcommands = Mapping[str, tuple[str, Callable[[Sequence[str]], int]]]
"""name → (a line for the help, what runs it)."""


def run_group(prog: str, summary: str, example: str, commands: Subcommands, argv: Sequence[str]) -> int:
    """Dispatch on the first word that is no `--debug`; returns the exit code."""
    words = [word for word in argv if word != "--debug"]
    match words[:1]:
        case [] | ["-h" | "--help" | "help"]:
            width = max(map(len, commands))
            lines = "\n".join(f"  {name:<{width}}  {line}" for name, (line, _) in commands.items())
            print(
                f"usage: {prog} COMMAND [FLAGS]\n\n{summary}\n\nCommands:\n{lines}\n\nExample:\n  {example}\n\n{prog} COMMAND --help shows its flags."
            )
            return 0
        case [name] if name in commands:
            rest = list(argv)
            rest.remove(name)
            return commands[name][1](rest)
    raise UsageError(f"Unknown command '{prog} {words[0]}'", "", suggestion(words[0], list(commands), f"{prog} ") or f"{prog} --help")
