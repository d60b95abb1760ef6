"""How the chat looks: highlighted and live on a terminal, plain lines anywhere else. What a model wrote is never trusted to print itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from rlaif.cli.chat_model import Written
from rlaif.cli.ctrl_c import heard_at_once
from rlaif.runs.text import printable
from rlaif.types import Feedback, TestCase, TestReport, TestResult

PROMPT = "task> "
SIDE_BY_SIDE_COLUMNS = 100
"""A narrower window gets one answer under the other."""
_CODE_LINES = 80


class View:
    """Prints to stdout, reads from stdin."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.terminal = self.console.is_terminal and sys.stdin.isatty()

    # -- reading -----------------------------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """What the person types, until Ctrl-D; Ctrl-C throws the line away. Off a terminal every line is shown as it is read."""
        if not self.terminal:
            for line in sys.stdin:
                self.text(f"{PROMPT}{line.rstrip()}")
                yield line
            return
        with suppress(ImportError):
            import readline  # noqa: F401  # arrow keys and the lines typed before
        while True:
            try:
                with heard_at_once():
                    line = input(PROMPT)
            except KeyboardInterrupt:
                self.note("\nCtrl-D or /quit leaves.")
            except EOFError:
                self.text("")
                return
            else:
                yield line

    # -- telling -----------------------------------------------------------------------------------------------------------------------

    def welcome(self, model: str) -> None:
        """Who is there and what to do first, for somebody who sees this for the first time."""
        self._print(Text.assemble(("This is ", ""), (printable(model, 1), "bold"), (", a language model that writes Python.", "")))
        self.text("Type a task in plain words, for example: Write a function add(a, b) that adds two numbers")
        self.text("Then run the code with a call: add(2, 3) == 5. /help shows the rest, /quit leaves.")

    def text(self, text: str) -> None:
        self._print(Text(printable(text)))

    def note(self, text: str) -> None:
        self._print(Text(printable(text), style="dim"))

    def error(self, text: str) -> None:
        self._print(Text(printable(text), style="red"))

    @contextmanager
    def streaming(self) -> Iterator[Callable[[str], None]]:
        """Gives a function that shows the code so far; what it showed is gone afterwards, and `code` prints the answer for good."""
        if not self.terminal or self.console.is_dumb_terminal:
            yield lambda code: None
            return
        with Live(console=self.console, transient=True, refresh_per_second=12) as live:
            yield lambda code: live.update(self._code(code, last_lines=max(3, self.console.height - 4)))

    def code(self, answer: Written) -> None:
        """An answer, highlighted on a terminal."""
        if not answer.code.strip():
            self.note("(The model wrote nothing.)")
            return
        self._print(self._code(answer.code) if self.terminal else Text(_indented(answer.code)))
        if answer.finish_reason == "length":
            self.note("(Cut off at the longest answer allowed: --max_new_tokens.)")

    def value(self, source: str, result: TestResult) -> None:
        """What a call gave."""
        if result.actual is not None:
            self._print(Text(f"{printable(source, 3)} gives {printable(result.actual, 10)}"))
        else:
            self._print(Text(f"{printable(source, 3)} fails: {printable(result.error or 'no answer', 10)}", style="red"))

    def verdict(self, case: TestCase, report: TestReport) -> None:
        """Whether a call gave what it should."""
        call, result = printable(case.input, 3), report.results[0] if report.results else None
        if report.all_passed:
            self._print(Text(f"passes: {call} gives {printable(case.expected, 3)}", style="green"))
        elif result is not None and result.actual is not None and not result.error:
            self._print(Text(f"fails: {call} gives {printable(result.actual, 3)}, not {printable(case.expected, 3)}", style="red"))
        else:
            why = (result.error if result else None) or report.message or (report.failure or "no answer").replace("_", " ")
            self._print(Text(f"fails: {call}: {printable(why, 6)}", style="red"))

    def feedback(self, feedback: Feedback, *, tested: bool) -> None:
        """The reward and every reason for it."""
        self._print(self._feedback(feedback))
        if not tested:
            self.note("No test yet, so this is an opinion. Type one, such as add(2, 3) == 5, and ask again.")

    def side_by_side(self, answers: Sequence[tuple[str, Written, Feedback]]) -> None:
        """(title, answer, feedback) next to each other where the window is wide enough."""
        if self.terminal and self.console.width >= SIDE_BY_SIDE_COLUMNS:
            table = Table.grid(expand=True, padding=(0, 1))
            for _ in answers:
                table.add_column(ratio=1)
            table.add_row(*(Panel(self._code(answer.code), title=printable(title, 1)) for title, answer, _ in answers))
            table.add_row(*(self._feedback(feedback) for _, _, feedback in answers))
            self._print(table)
            return
        for title, answer, feedback in answers:
            self._print(Text(f"--- {printable(title, 1)}", style="bold"))
            self.code(answer)
            self._print(self._feedback(feedback))

    # -- own ---------------------------------------------------------------------------------------------------------------------------

    def _feedback(self, feedback: Feedback) -> Text:
        reward = "nobody could say" if feedback.reward is None else f"{feedback.reward:.2f} of 1, {feedback.band}"
        style = {"good": "bold green", "okay": "bold yellow", "poor": "bold red"}.get(feedback.band or "", "bold")
        out = Text.assemble((f"reward: {reward}", style))
        for reason in feedback.reasons:
            out.append(f"\n  {printable(reason, 3, 300)}")
        return out

    def _code(self, code: str, last_lines: int | None = None) -> Syntax:
        safe = printable(code.rstrip(), _CODE_LINES)
        if last_lines is not None:
            safe = "\n".join(safe.split("\n")[-last_lines:])
        return Syntax(safe, "python", theme="ansi_dark", background_color="default", word_wrap=True)

    def _print(self, what: object) -> None:
        self.console.print(what, soft_wrap=not self.terminal)


def _indented(code: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in printable(code.rstrip(), _CODE_LINES).split("\n"))
