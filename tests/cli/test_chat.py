"""The chat, off a terminal line by line, and on one through a pseudo-terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from rlaif.cli.chat_model import TypedTest, problem_of, typed_test, with_code
from rlaif.types import TestCase

TASK = "Write a function add(a, b) that adds two numbers"
CHAT = ("chat", "--model_path", "smollm2-135m", "--judge", "none")


# -- reading what was typed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "entry_point", "signature"),
    [
        (TASK, "add", "def add(a, b):"),
        ("Write `is_prime(n: int)`, please", "is_prime", "def is_prime(n: int):"),
        ("Write a function called double", "double", ""),
        ("Reverse a string (fast)", None, ""),
        ("Return the n-th number of f(1), f(2)", None, ""),
        ("Sort words", None, ""),
    ],
)
def test_a_task_may_name_the_function(task: str, entry_point: str | None, signature: str):
    problem = problem_of(task, 1)
    assert (problem.prompt, problem.entry_point, problem.signature) == (task, entry_point, signature)


@pytest.mark.parametrize(
    ("line", "source", "expected"),
    [
        ("add(2, 3)", "add(2, 3)", None),
        ("add(2,3) == 5", "add(2, 3)", "5"),
        ("5 == add(2, 3)", "add(2, 3)", "5"),
        ("assert add([1], []) == [1]", "add([1], [])", "[1]"),
        ("s = Stack(); s.push(1); s.pop() == 1", "s = Stack()\ns.push(1)\ns.pop()", "1"),
        ("add(2, 3) == add(3, 2)", "add(2, 3) == add(3, 2)", None),
        ("add(2, 3) > 4", "add(2, 3) > 4", None),
    ],
)
def test_a_call_is_told_from_a_task(line: str, source: str, expected: str | None):
    test = typed_test(line)
    assert test is not None and (test.source, test.expected) == (source, expected)


@pytest.mark.parametrize("line", ["Add two numbers", "reverse", "add(2, 3", "x = add(2, 3)", "5", "", "def f(): pass"])
def test_what_is_no_call_is_a_task(line: str):
    assert typed_test(line) is None


def test_the_function_that_was_written_stands_in_where_the_task_named_none():
    code = "LIMIT = 3\ndef first(x):\n    return x\ndef second(x):\n    return x\n"
    assert with_code(problem_of("Do something", 1), code).entry_point == "first"
    assert with_code(problem_of("Do it in second(x)", 1), code).entry_point == "second"
    assert with_code(problem_of("Do it in third(x)", 1), code).entry_point == "first"
    assert TypedTest("f(1)", ("f",), "2").case == TestCase("graded", "f(1)", "2")


# -- off a terminal --------------------------------------------------------------------------------------------------------------------


def test_a_conversation_line_by_line(with_model: Path, rlaif: Callable):
    lines = [
        TASK,
        "add(2, 3) == 5",
        "add(2, 3) == 6",
        "add(1)",
        "add('a', 'b')",
        "mul(2, 3)",
        "/judge",
        "/drop",
        "/judge",
        "/history",
        "/jugde",
        "/test",
        "",
    ]
    done = rlaif(*CHAT, stdin="\n".join(lines))
    assert done.code == 0, done.err
    parts = dict(zip(lines, re.split(r"^task> .*\n", done.out, flags=re.M)[1:], strict=False))
    assert "def add(a, b):\n        return a + b" in parts[TASK] and "add(a, b)" in parts[TASK]
    assert "passes: add(2, 3) gives 5" in parts["add(2, 3) == 5"]
    assert "fails: add(2, 3) gives 5, not 6" in parts["add(2, 3) == 6"]
    assert "add(1) fails: TypeError" in parts["add(1)"]
    assert "gives 'ab'" in parts["add('a', 'b')"]
    assert "The code has no mul" in parts["mul(2, 3)"] and "it defines add" in parts["mul(2, 3)"]
    first, second = re.findall(r"reward: (\d\.\d\d) of 1, (\w+)", done.out)
    assert first[1] == "poor" and second[1] == "good" and float(second[0]) >= 0.6
    assert "Forgotten: add(2, 3)" in parts["/drop"]
    assert f"*1. {TASK}  (1 answer, 1 test)" in parts["/history"]
    assert "did you mean /judge?" in parts["/jugde"]
    assert "\x1b" not in done.out


def test_commands_before_any_task_say_what_to_do_first(with_model: Path, rlaif: Callable):
    done = rlaif(*CHAT, stdin="/judge\n/again\nadd(1, 2)\n/history\n/help\n/quit\nnever reached\n")
    assert done.out.count("There is no code yet") == 3 and "No task yet" in done.out
    assert "/compare" in done.out and "never reached" not in done.out and done.code == 0


def test_the_trained_and_the_untrained_model_are_compared(with_model: Path, rlaif: Callable):
    done = rlaif(*CHAT, "--base", str(with_model / "models" / "smollm2-135m"), stdin=f"{TASK}\nadd(1, 2) == 3\n/compare\n")
    assert done.out.count("return a + b") == 3  # the first answer, and both of the comparison
    assert len(re.findall(r"reward: \d", done.out)) == 2
    alone = rlaif(*CHAT, stdin=f"{TASK}\n/compare\n")
    assert "There is nothing to compare with" in alone.out and "--base MODEL" in alone.out


def test_going_back_to_an_earlier_task(with_model: Path, rlaif: Callable):
    done = rlaif(*CHAT, "--max_new_tokens", "3", stdin=f"{TASK}\nSomething else\n/history 1\n/history 7\n")
    assert "There is no task 7" in done.out
    assert done.out.count("def add(a, b):") == 2
    assert "Cut off at the longest answer allowed" in done.out


def test_no_judge_is_no_end(with_model: Path, rlaif: Callable):
    words = ("chat", "--model_path", "smollm2-135m", "--judge", "local", "--judge.model", "./nowhere")
    done = rlaif(*words, stdin=f"{TASK}\nadd(1, 2) == 3\n/judge\n")
    assert done.code == 0 and "Going on without a judge" in done.out and "./nowhere" in done.out
    assert "1 of 1 tests passed" in done.out


def test_what_a_model_writes_cannot_steer_the_terminal(with_model: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    from rlaif.cli import chat_model

    evil = "def add(a, b):\n    return '\x1b[2J\x1b]0;owned\x07'\n"
    monkeypatch.setattr(chat_model.Writer, "write", lambda *_, **__: chat_model.Written("evil", evil, "eos"))
    done = rlaif(*CHAT, stdin="Add\nadd(1, 2)\n")
    assert "\x1b" not in done.out and "\\x1b[2J" in done.out


# -- on a terminal ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(with_model: Path) -> Iterator[Callable[..., pexpect.spawn]]:
    """Starts `rlaif WORDS` in a pseudo-terminal."""
    started: list[pexpect.spawn] = []

    def start(*words: str, columns: int = 120, **environment: str) -> pexpect.spawn:
        env = {**os.environ, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1", **environment}
        for name in ("NO_COLOR", "COLUMNS"):
            env.pop(name, None) if name not in environment else None
        child = pexpect.spawn(sys.executable, ["-m", "rlaif", *words], env=env, dimensions=(30, columns), encoding="utf-8", timeout=60, echo=False)
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _begin_a_line_and_interrupt(chat: pexpect.spawn) -> None:
    # Ctrl-C throws away what the terminal has not handed over yet, and readline, told that there is a key, would wait for the next one: with
    # Ctrl-L, which clears the screen, one sees that all of the line was read
    chat.send("half a line\x0c")
    chat.expect_exact("\x1b[H\x1b[2J")
    chat.sendintr()
    chat.expect("/quit leaves")
    chat.expect("task> ")


def test_on_a_terminal_code_is_highlighted_and_ctrl_d_leaves(terminal: Callable[..., pexpect.spawn]):
    chat = terminal(*CHAT, "--base", "smollm2-135m")
    chat.expect("task> ")
    assert "a language model that writes Python" in _plain(chat.before) and "/help" in chat.before
    chat.sendline(TASK)
    chat.expect("task> ")
    assert "return a + b" in _plain(chat.before) and "\x1b[" in chat.before, "not highlighted"
    chat.sendline("add(2, 3) == 5")
    chat.expect("task> ")
    assert "passes: add(2, 3) gives 5" in _plain(chat.before)
    chat.sendline("/compare")
    chat.expect("task> ")
    row = next(line for line in _plain(chat.before).splitlines() if line.count("return a + b") == 2)
    assert len(row.rstrip()) <= 120, "the two answers stand side by side, inside the window"
    _begin_a_line_and_interrupt(chat)  # one Ctrl-C is enough, also with the threads of two models about
    chat.sendline("add(2, 3) == 6")
    chat.expect("task> ")
    assert "fails: add(2, 3) gives 5, not 6" in _plain(chat.before), "the line begun before Ctrl-C is gone, and the sandbox is not"
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_ctrl_c_at_the_prompt_stays(terminal: Callable[..., pexpect.spawn]):
    chat = terminal(*CHAT)
    chat.expect("task> ")
    _begin_a_line_and_interrupt(chat)
    chat.sendeof()
    chat.expect(pexpect.EOF)


CTRL_C_FOR_ANOTHER_THREAD = """
import pathlib, readline, signal, sys, threading, time
from rlaif.cli.chat_view import View
def interrupt():
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.05)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=interrupt).start()
for line in View().lines():
    print("got", line)
"""


def test_ctrl_c_that_the_system_gives_to_another_thread_is_heard(tmp_path: Path):
    chat = pexpect.spawn(sys.executable, ["-c", CTRL_C_FOR_ANOTHER_THREAD, str(tmp_path / "now")], encoding="utf-8", timeout=60, echo=False)
    chat.expect("task> ")
    (tmp_path / "now").touch()
    chat.expect("/quit leaves")
    chat.expect("task> ")
    chat.sendline("still here")
    chat.expect("got still here")
    chat.expect("task> ")  # before that the terminal is not readline's, and Ctrl-D not a key
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_a_narrow_terminal_without_colour(terminal: Callable[..., pexpect.spawn]):
    chat = terminal(*CHAT, "--base", "smollm2-135m", columns=40, NO_COLOR="1")
    chat.expect("task> ")
    chat.sendline(TASK)
    chat.expect("task> ")
    chat.sendline("/compare")
    chat.expect("task> ")
    shown = chat.before
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown), "colour in spite of NO_COLOR"
    assert _plain(shown).count("return a + b") >= 2 and max(map(len, _plain(shown).splitlines())) <= 40
    chat.sendline("/quit")
    chat.expect(pexpect.EOF)
