"""`rlaif problems more-tests`: what a model proposes goes through the gate, and nothing that is there is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rlaif.judge.writer import Messages, Written

REPLY = "```python\nassert clamp(-3, 0, 9) == 0\nassert clamp(4, 0, 9) == 9\nassert clamp(5, 0, 9) == 5\n```"
CLAMP = {
    "prompt": "Return x, but at least low and at most high",
    "entry_point": "clamp",
    "signature": "def clamp(x, low, high):",
    "reference": "def clamp(x, low, high):\n    return max(low, min(x, high))\n",
    "tests": [{"role": "graded", "input": "clamp(5, 0, 9)", "expected": "5"}, {"role": "held_out", "input": "clamp(50, 0, 9)", "expected": "9"}],
}


class Scripted:
    """A writer that gives these replies, one a request."""

    name = "scripted"

    def __init__(self, replies: Sequence[Written]) -> None:
        self.replies, self.asked = list(replies), []

    def write(self, questions: Sequence[Messages], *, max_tokens: int, seed: int, openings: Sequence[str] | None = None) -> list[Written]:
        self.asked += [messages[0]["content"] for messages in questions]
        return [self.replies.pop(0) for _ in questions]


@pytest.fixture
def problems(here: Path) -> Path:
    rows = [CLAMP | {"id": "mine/a"}, CLAMP | {"id": "mine/b", "reference": None}, CLAMP | {"id": "mine/c"}]
    path = here / "mine.jsonl"
    path.write_text("".join(json.dumps({key: value for key, value in row.items() if value is not None}) + "\n" for row in rows))
    return path


def written_by(monkeypatch: pytest.MonkeyPatch, *replies: Written) -> Scripted:
    writer = Scripted(replies)
    monkeypatch.setattr("rlaif.judge.writer.make_writer", lambda config, cache_dir=None: writer)
    return writer


def test_only_tests_that_pass_the_gate_are_added(problems: Path, here: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    writer = written_by(monkeypatch, Written(REPLY), Written("", error="the server is tired"))
    done = rlaif("problems", "more-tests", str(problems), "--out", "wide.jsonl", "--role", "held_out")
    assert done.code == 0, done.err
    assert len(writer.asked) == 2, "a problem without a reference is not asked about: there is nothing to try a test on"
    assert "50" not in "".join(writer.asked), "a held-out test is not shown to the writer"
    rows = [json.loads(line) for line in (here / "wide.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["mine/a", "mine/b", "mine/c"]
    assert [len(row["tests"]) for row in rows] == [3, 2, 2]
    assert rows[0]["tests"][-1] == {"role": "held_out", "input": "clamp(-3, 0, 9)", "expected": "0"}
    assert "1 of 3 tests by scripted admitted, 1 requests unanswered; 3 problems written to wide.jsonl" in done.out
    assert "refused, the reference fails it: 1" in done.out and "refused, it repeats a test: 1" in done.out


def test_a_writer_that_never_answers_is_a_failure(problems: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    written_by(monkeypatch, *[Written("", error="no server")] * 2)
    done = rlaif("problems", "more-tests", str(problems), "--out", "wide.jsonl")
    assert done.code == 1 and "scripted answered nothing" in done.err


def test_nothing_is_written_over_or_asked_in_vain(problems: Path, here: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    writer = written_by(monkeypatch)
    (here / "wide.jsonl").write_text("precious")
    done = rlaif("problems", "more-tests", str(problems), "--out", "wide.jsonl")
    assert done.code == 2 and "--force" in done.err and (here / "wide.jsonl").read_text() == "precious"
    bare = here / "bare.jsonl"
    bare.write_text(json.dumps({key: value for key, value in CLAMP.items() if key != "reference"}) + "\n")
    done = rlaif("problems", "more-tests", str(bare), "--out", "other.jsonl")
    assert done.code == 2 and "has a reference solution" in done.err and not (here / "other.jsonl").exists()
    assert not writer.asked
