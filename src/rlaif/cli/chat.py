"""`rlaif chat`: type a task, watch the code appear, run a call on it, ask the judge, compare with the untrained model.

Works off a terminal too: then it reads lines from standard input until they end, and prints plain text.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydantic import Field

from rlaif.cli.chat_model import TypedTest, Writer, Written, defined, problem_of, typed_test, with_code
from rlaif.cli.chat_view import View
from rlaif.cli.flags import CommandLine
from rlaif.cli.guard import suggestion
from rlaif.cli.models import ModelChoice, find_model
from rlaif.config import Device, Dtype, JudgeConfig, SandboxConfig, Settings
from rlaif.errors import RlaifError, UsageError
from rlaif.judge import Judge, make_judge
from rlaif.problems import pysource
from rlaif.rewards import RewardEngine
from rlaif.sandbox import Sandbox
from rlaif.types import Feedback, Problem, TestCase


class ChatConfig(Settings):
    """One conversation."""

    model_path: str | None = None
    """Run directory, model folder or model name; default: the latest run."""
    base: str | None = None
    """The model that /compare puts beside it; default: the one that the run began with."""
    max_new_tokens: int = Field(200, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0.8, gt=0)
    """For /again; the first answer takes the most likely tokens."""
    dtype: Dtype = "auto"
    device: Device = "auto"
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    judge: JudgeConfig = JudgeConfig()
    sandbox: SandboxConfig = SandboxConfig()


def command_line(prog: str = "rlaif chat") -> CommandLine[ChatConfig]:
    """The flags of `rlaif chat` and of `python evaluate.py --interactive`."""
    return CommandLine(
        prog,
        "Type a task in plain words, see the code, run a call on it, ask the judge, compare with the untrained model.",
        f"{prog} --model_path smollm2-135m",
        ChatConfig,
        details="Off a terminal it reads its lines from standard input: tasks, calls and commands such as /judge, one a line.",
    )


HELP = """\
Type a task in plain words:      Write a function add(a, b) that adds two numbers
Then run the code with a call:   add(2, 3)
or with what you expect:         add(2, 3) == 5

/again        another answer to the same task
/judge        all feedback on the code: your tests, the judge, style, and the reward they make
/compare      the answers of the trained and the untrained model, side by side
/test CALL    run a call (the same as typing it)
/drop         forget the last call that said what it expects
/code         show the code again
/history      the tasks so far; /history 2 goes back to the second
/quit         leave (Ctrl-D does too)"""
COMMANDS = ("again", "judge", "compare", "test", "drop", "code", "history", "help", "quit")


def run(argv: Sequence[str], prog: str = "rlaif chat") -> int:
    """Returns 0 when the person leaves; raises RlaifError if there is no model or no sandbox."""
    config = command_line(prog).parse(argv).settings
    choice = find_model(config.model_path)
    view = View()
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(config.sandbox))
        view.note(f"Loading {choice.label} ...")
        Chat(config, choice, _writer(config, choice), sandbox, view).talk()
    return 0


def _writer(config: ChatConfig, choice: ModelChoice) -> Writer:
    return Writer(
        choice.source,
        choice.label,
        dtype=config.dtype,
        device=config.device,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
    )


@dataclass
class Turn:
    """One task: the answers to it, the one in hand, and the calls typed with what they should give."""

    problem: Problem
    answers: list[Written] = field(default_factory=list)
    tests: list[TestCase] = field(default_factory=list)

    @property
    def answer(self) -> Written:
        return self.answers[-1]

    @property
    def graded(self) -> Problem:
        return with_code(self.problem, self.answer.code, tuple(self.tests))


class Chat:
    """The conversation. Every line is a command (`/judge`), a call (`add(2, 3)`) or a task."""

    def __init__(self, config: ChatConfig, choice: ModelChoice, writer: Writer, sandbox: Sandbox, view: View) -> None:
        self.config, self.choice, self.writer, self.sandbox, self.view = config, choice, writer, sandbox, view
        self.turns: list[Turn] = []
        self.turn: Turn | None = None
        self._judge: Judge | None = None
        self._judge_tried = config.judge.kind == "none"
        self._base: Writer | None = None

    def talk(self) -> None:
        """Until /quit or the end of the input. An error is said, and the conversation goes on."""
        self.view.welcome(self.choice.label)
        for line in self.view.lines():
            try:
                if not self.answer(line.strip()):
                    return
            except RlaifError as error:
                self.view.error(str(error))
            except KeyboardInterrupt:
                self.view.note("Stopped. /quit leaves.")

    def answer(self, line: str) -> bool:
        """Do what one line asks for; False to leave."""
        if not line:
            return True
        if line.startswith("/") or line.lower() in ("quit", "exit", "help"):
            return self._command(line.lstrip("/"))
        test = typed_test(line)
        if test is not None:
            self._test(test)
        else:
            self._task(line)
        return True

    def _command(self, line: str) -> bool:
        name, _, rest = line.partition(" ")
        match name.lower():
            case "quit" | "exit" | "q":
                return False
            case "help" | "h" | "?":
                self.view.text(HELP)
            case "again":
                self._write(self._current(), greedy=False)
            case "judge":
                self._feedback(self._current())
            case "compare":
                self._compare(self._current())
            case "test":
                test = typed_test(rest)
                if test is None:
                    raise UsageError("That is no call that Python can read", rest, "/test add(2, 3) == 5")
                self._test(test)
            case "drop":
                tests = self._current().tests
                self.view.note(f"Forgotten: {tests.pop().input}" if tests else "There is no test to forget.")
            case "code":
                self.view.code(self._current().answer)
            case "history":
                self._history(rest.strip())
            case _:
                raise UsageError(f"Unknown command /{name}", "", suggestion(name, COMMANDS, "/") or "/help")
        return True

    def _current(self) -> Turn:
        if self.turn is None or not self.turn.answers:
            raise UsageError("There is no code yet", "", "type a task first, such as: Write a function add(a, b) that adds two numbers")
        return self.turn

    def _task(self, task: str) -> None:
        turn = Turn(problem_of(task, len(self.turns) + 1))
        self.turns.append(turn)
        self.turn = turn
        self._write(turn, greedy=True)

    def _write(self, turn: Turn, *, greedy: bool) -> None:
        with self.view.streaming() as on_code:
            answer = self.writer.write(turn.problem, greedy=greedy, on_code=on_code)
        turn.answers.append(answer)
        self.view.code(answer)
        for case in turn.tests:
            self._run_case(turn, case)
        if turn.tests:
            return
        names = defined(answer.code)
        if names:
            self.view.note(f"Try it: type a call such as {_example_call(answer.code, names[0])} · /judge for feedback · /again for another answer")
        else:
            self.view.note("It defines no function that could be called. /again for another answer, or say the task in other words")

    def _test(self, test: TypedTest) -> None:
        turn = self._current()
        names = defined(turn.answer.code)
        missing = [name for name in test.called if name not in names and not hasattr(builtins, name)]
        if missing and not set(test.called) & set(names):
            known = f"it defines {', '.join(names)}" if names else "it defines no function"
            raise UsageError(f"The code has no {missing[0]}", known, f"{names[0]}(...)" if names else "/again")
        if test.case is None:
            self.view.value(test.source, self.sandbox.evaluate(turn.answer.code, test.source))
            return
        if test.case not in turn.tests:
            turn.tests.append(test.case)
        self._run_case(turn, test.case)

    def _run_case(self, turn: Turn, case: TestCase) -> None:
        report = self.sandbox.run(with_code(turn.problem, turn.answer.code, (case,)), turn.answer.code)
        self.view.verdict(case, report)

    def _feedback(self, turn: Turn) -> None:
        self.view.feedback(self._score(turn.graded, turn.answer.code), tested=bool(turn.tests))

    def _score(self, problem: Problem, code: str) -> Feedback:
        return RewardEngine(self.sandbox, self._get_judge(), "hybrid").score([problem], [code])[0]

    def _get_judge(self) -> Judge | None:
        """The judge, made when first asked for. Without one the tests still speak."""
        if not self._judge_tried:
            self._judge_tried = True
            self.view.note("Waking the judge ...")
            try:
                self._judge = make_judge(self.config.judge, policy=self.writer.policy)
            except RlaifError as error:
                self.view.note("Going on without a judge. " + " ".join(str(error).splitlines()))
        return self._judge

    def _compare(self, turn: Turn) -> None:
        base = self.config.base or self.choice.base
        if base is None:
            raise UsageError(
                "There is nothing to compare with", f"{self.choice.label} is not a run, so nobody knows what it began with", "--base MODEL"
            )
        if self._base is None:
            self.view.note(f"Loading {base} ...")
            self._base = _writer(self.config, find_model(base))
        with self.view.streaming() as on_code:
            before = self._base.write(turn.problem, greedy=True, on_code=on_code)
        pairs = [
            (title + answer.label, answer, self._score(with_code(turn.problem, answer.code, tuple(turn.tests)), answer.code))
            for title, answer in zip(("before training: ", "after training: ") if self.choice.run else ("", ""), (before, turn.answer), strict=True)
        ]
        self.view.side_by_side(pairs)

    def _history(self, number: str) -> None:
        if number:
            if not number.isdigit() or not 1 <= int(number) <= len(self.turns):
                raise UsageError(f"There is no task {number}", "", "/history lists them")
            self.turn = self.turns[int(number) - 1]
            self.view.text(self.turn.problem.prompt)
            if self.turn.answers:
                self.view.code(self.turn.answer)
            return
        if not self.turns:
            self.view.note("No task yet.")
        for place, turn in enumerate(self.turns, 1):
            answers, tests = len(turn.answers), len(turn.tests)
            mark = "*" if turn is self.turn else " "
            self.view.text(f"{mark}{place}. {turn.problem.prompt}  ({answers} answer{'s'[: answers != 1]}, {tests} test{'s'[: tests != 1]})")


def _example_call(code: str, name: str) -> str:
    """ "add(a, b)", with the argument names that the code gives."""
    node = pysource.definition(code, name)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"{name}({', '.join(argument.arg for argument in node.args.posonlyargs + node.args.args)}) with values for its arguments"
    return f"{name}()"
