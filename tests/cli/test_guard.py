"""Exit codes of what can happen to any command: Ctrl-C, a reader that goes away, a full disk, a bug."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time

import pytest

from rlaif.cli.guard import guarded
from rlaif.errors import BelowThreshold, JudgeUnavailable, ProblemFileError, RunFailed, UsageError


def _raises(error: BaseException):
    def command(argv: object) -> int:
        raise error

    return command


class SafetensorError(Exception):
    """Named as the one of safetensors, which the guard must not import."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RunFailed("It broke", "for a reason", "this"), 1, ["Error: It broke\nfor a reason\nTry: this"]),
        (UsageError("Not so"), 2, ["Error: Not so"]),
        (ProblemFileError("a.jsonl", 3, "prompt", "it is missing"), 2, ["a.jsonl, line 3, field 'prompt'", "Try: correct that"]),
        (JudgeUnavailable("No judge"), 3, ["No judge"]),
        (BelowThreshold("Too low"), 4, ["Too low"]),
        (KeyboardInterrupt(), 130, ["Interrupted."]),
        (OSError(errno.ENOSPC, "No space left on device", "out.jsonl"), 1, ["disk is full while writing out.jsonl", "Try: "]),
        (PermissionError(errno.EACCES, "Permission denied", "secret"), 1, ["secret: Permission denied", "permissions"]),
        (MemoryError(), 1, ["Out of memory", "--batch_size"]),
        (SafetensorError("header too small"), 3, ["weights is broken", "header too small"]),
        (ZeroDivisionError("oops"), 1, ["Unexpected ZeroDivisionError: oops", "--debug"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_messages_and_exit_codes(error: BaseException, code: int, words: list[str], capsys: pytest.CaptureFixture[str]):
    assert guarded(_raises(error), []) == code
    err = capsys.readouterr().err
    assert all(word in err for word in words) and "Traceback" not in err
    assert guarded(_raises(error), ["--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_help_ends_with_0_and_a_result_is_passed_on():
    assert guarded(_raises(SystemExit(0)), []) == 0
    assert guarded(_raises(SystemExit()), []) == 0
    assert guarded(lambda argv: 4, []) == 4


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m rlaif problems list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""


def test_ctrl_c_while_a_command_waits_for_input():
    words = [sys.executable, "-m", "rlaif", "reward", "-", "--feedback", "execution", "--json"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr and process.stderr.read().strip() == "Interrupted."
