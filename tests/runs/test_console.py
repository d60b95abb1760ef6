"""The console off a terminal, and on one: a pseudo-terminal whose screen is replayed from the bytes it got."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from rlaif.config import TrainConfig
from rlaif.runs import Console
from rlaif.runs.text import printable, sparkline
from rlaif.types import Completion, Feedback, Problem, Rollout
from tests.synthetic_run import HOSTILE, hostile_rollout, problems

METRICS = {
    "reward_mean": 0.31,
    "pass_rate": 0.25,
    "approx_kl": 0.002,
    "tokens_per_s": 240.0,
    "episode_s": 14.0,
    "judge_calls": 32,
    "judge_spend_usd": 0.01,
}


def answer(code: str, reward: float) -> Rollout:
    problem = problems(1)[0][0]
    band = "poor" if reward < 0.3 else "good"
    return Rollout(3, problem, Completion(problem.id, code, code), Feedback(reward, "scored", True, band, reasons=("3 of 3 tests passed",)))


def plain(**kwargs) -> str:
    file = io.StringIO()
    with Console(file=file, **kwargs) as console:
        console.start(TrainConfig(), notes={"sandbox": "strong"})
        console.episode(3, 20, METRICS, answer("def f():\n    return 1", 0.9), answer("def f(:", 0.02))
        console.warning("the judge drifts")
        console.evaluation("Before training", 0.28, 0.2, 0.37, 28, 100)
        console.finish(None, 0.28, 0.41, (0.06, 0.2))
    return file.getvalue()


def test_plain_lines_tell_the_story():
    text = plain()
    for part in (
        "Episode 3/20",
        "    def f():",
        "    return 1",
        "Reward: 0.90 (3 of 3 tests passed)",
        "Average reward: 0.31",
        "pass rate 25%",
        "240",
        "Warning: the judge drifts",
    ):
        assert part in text, part
    assert "28.0% of held-out problems solved (28 of 100; 95% interval 20.0 to 37.0%)" in text
    assert "went from 28.0% to 41.0% (+13.0 points, 95% interval +6.0 to +20.0): good progress." in text
    assert "\x1b" not in text
    assert text.index("Episode 3/20") < text.index("def f():") < text.index("Reward: 0.90") < text.index("Average reward")


def test_a_change_that_may_be_chance_is_called_so():
    file = io.StringIO()
    Console(file=file).finish(None, 0.28, 0.30, (-0.02, 0.06))
    assert "may be chance" in file.getvalue()


def test_json_mode_keeps_stdout_for_the_result():
    code = "from rlaif.runs import Console; c = Console(json_mode=True); c.message('prose'); print('{}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n" and "prose" in done.stderr


def test_hostile_output_cannot_steer_the_terminal():
    file = io.StringIO()
    evil = hostile_rollout(1, Problem("p", "[bold]\x1b]0;owned\x07 " + HOSTILE))
    with Console(file=file) as console:
        console.episode(1, 2, {"reward_mean": 0.1}, evil, None)
        console.message("[red]\x9b31m")
    text = file.getvalue()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[bold]" in text and "\\x1b]0;owned" in text and HOSTILE in text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\tb", "a    b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb", "a\nb"),
        ("x\rhidden", "x\\rhidden"),
        ("\u202eevil", "\\u202eevil"),
        ("naïve 日本", "naïve 日本"),
    ],
)
def test_printable(text, safe):
    assert printable(text) == safe


def test_printable_cuts_and_says_so():
    assert printable("1\n2\n3", 1) == "1\n… 2 more lines"
    assert printable("x" * 500, max_columns=3) == "xxx…"


def test_sparkline():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 9) == "▁▁▂▃▄▅▆▇█"[:9] or sparkline([0, 8]) == "▁█"
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([2, 2]) == "▄▄"
    assert sparkline([None, 1, float("nan"), 2]) == " ▁ █"
    assert sparkline([]) == "" and sparkline([None]) == " "
    assert len(sparkline(list(range(1000)), 24)) == 24
    assert sparkline([0.5], low=0, high=1) == "▅"


# -- on a terminal ---------------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
from test_console import METRICS, answer
from rlaif.config import TrainConfig
from rlaif.runs import Console
with Console() as console:
    console.start(TrainConfig(episodes=3))
    for i in (1, 2, 3):
        console.stage("sampling", i, 3)
        time.sleep(0.05)
        console.episode(i, 3, {**METRICS, "reward_mean": i / 4}, answer("def good(text):\\n    return len(text)", 0.9), answer("def bad(:", 0.02))
    if "fail" in sys.argv:
        raise KeyboardInterrupt
    console.finish(None, 0.2, 0.4, (0.1, 0.3))
"""


def on_terminal(columns: int, lines: int = 30, arguments: tuple[str, ...] = (), **environment: str) -> str:
    """Everything the script wrote to a pseudo-terminal of this size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    }
    path = os.pathsep.join([os.path.dirname(__file__), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**clean, "TERM": "xterm-256color", "PYTHONPATH": path, **environment},
    )
    os.close(slave)
    data, end = b"", time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            data += chunk
        elif process.poll() is not None:
            break
    process.wait(timeout=10)
    os.close(master)
    return data.decode()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_live_view_redraws_and_keeps_a_line_an_episode():
    raw = on_terminal(120)
    text = without_codes(raw)
    assert "\x1b[?25l" in raw and raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l"), "the cursor is hidden while it draws, and given back"
    for part in (
        "Episode 1/3  reward 0.25",
        "Episode 2/3  reward 0.50",
        "Episode 3/3  reward 0.75",
        "▃▆█",
        "pass rate",
        "240",
        "best: reward 0.90",
        "worst: reward 0.02",
        "judge",
        "96 calls, $0.03",
        "left",
        "20.0% to 40.0%",
    ):
        assert part in text, part
    assert re.search(r"\x1b\[[0-9;]*m(\x1b\[[0-9;]*m)*def", raw), "code is highlighted"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_window(columns):
    lines = without_codes(on_terminal(columns)).replace("\r", "\n").split("\n")
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert any("reward" in line for line in lines)


def test_a_short_window_is_not_overrun():
    raw = on_terminal(100, lines=12)
    moves = [int(n) for n in re.findall(r"\x1b\[(\d+)A", raw)]
    assert len(re.findall(r"\x1b\[1A", raw)) and max(moves, default=1) <= 12
    assert "Traceback" not in raw


def test_no_color_is_honoured():
    raw = on_terminal(100, NO_COLOR="1")
    colours = [
        code
        for codes in re.findall(r"\x1b\[([0-9;]*)m", raw)
        for code in codes.split(";")
        if code and int(code) in (*range(30, 38), 38, *range(90, 98))
    ]
    assert colours == [] and "Episode 3/3" in raw


@pytest.mark.parametrize(("columns", "term"), [(39, "xterm"), (100, "dumb")])
def test_plain_lines_where_a_live_view_cannot_be(columns, term):
    raw = on_terminal(columns, TERM=term)
    assert "\x1b[?25l" not in raw and "Average reward" in raw


def test_an_interrupted_run_gives_the_terminal_back():
    raw = on_terminal(100, arguments=("fail",))
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")
    assert "KeyboardInterrupt" in raw
