"""`rlaif reward` and `rlaif judge score`: the forms a line may have, the fields of the answer, order, bad lines, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlaif.cli.reward import Entry, score_entries
from rlaif.types import Feedback, Problem

ADD = "def add(a, b):\n    return a + b\n"
TASK = {"prompt": "Add two numbers"}
CHECK = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
FIELDS = ["reward", "outcome", "verified", "band", "tests", "judge", "quality", "reasons"]


def _write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("form", "total"),
    [
        ({"test_input": "add(2, 3)", "expected_output": "5"}, 1),
        ({"tests": [{"input": "add(2, 3)", "expected": "5"}, {"input": "add(0, 1)", "expected": "1"}]}, 2),
        ({"test_code": CHECK, "entry_point": "add"}, 1),
    ],
    ids=["seed", "tests", "humaneval"],
)
def test_each_form_of_tests_is_scored(form: dict, total: int, here: Path, rlaif: Callable):
    _write(here / "a.jsonl", [TASK | form | {"solution": ADD}, TASK | form | {"solution": ADD.replace("+", "-")}])
    done = rlaif("reward", "a.jsonl", "--json", "--feedback", "execution")
    right, wrong = done.rows
    assert done.code == 0
    assert list(right) == FIELDS
    assert (right["outcome"], right["verified"], right["band"], right["tests"]) == ("scored", True, "good", {"passed": total, "total": total})
    assert right["reward"] >= 0.6 and right["judge"] is None and right["quality"]["score"] == 1.0
    assert (wrong["outcome"], wrong["band"], wrong["tests"]["passed"]) == ("scored", "poor", 0)
    assert 0.1 <= wrong["reward"] < 0.3 and any("expected 5" in reason or "assert" in reason.lower() for reason in wrong["reasons"])


@pytest.mark.parametrize("solution", ["def add(a, b:\n", "def plus(a, b):\n    return a + b\n"], ids=["syntax", "name"])
def test_code_that_is_no_solution_is_a_policy_failure_with_a_low_reward(solution: str, here: Path, rlaif: Callable):
    _write(here / "a.jsonl", [TASK | {"test_input": "add(2, 3)", "expected_output": "5", "entry_point": "add", "solution": solution}])
    (row,) = rlaif("reward", "a.jsonl", "--json", "--feedback", "execution").rows
    assert row["outcome"] == "policy_failure" and 0 <= row["reward"] <= 0.1 and row["reasons"]


def test_bad_lines_are_named_and_the_rest_is_scored_in_order(here: Path, rlaif: Callable):
    good = TASK | {"test_input": "add(2, 3)", "expected_output": "5", "solution": ADD}
    rows = [
        good | {"id": "first"},
        "{not json",
        "",
        "[1, 2]",
        good | {"id": 5, "solution": 7},
        {"id": "no solution", "prompt": "p", "test_input": "f(1)", "expected_output": "1"},
        good | {"id": "bad literal", "expected_output": "five"},
        {"id": "no tests", "prompt": "p", "solution": ADD},
        '{"prompt": NaN, "solution": ""}',
        "[" * 100_000,
        good | {"id": "last"},
    ]
    _write(here / "a.jsonl", rows)
    done = rlaif("reward", "a.jsonl", "--json", "--feedback", "execution")
    assert done.code == 0
    assert [row.get("id") for row in done.rows] == ["first", None, None, 5, "no solution", "bad literal", "no tests", None, None, "last"]
    assert [row["outcome"] for row in done.rows] == ["scored", *["invalid_input"] * 8, "scored"]
    for row, line, word in zip(
        done.rows[1:9], (2, 4, 5, 6, 7, 8, 9, 10), ("JSON", "object", "solution", "solution", "expected_output", "tests", "NaN", ""), strict=True
    ):
        assert row["reward"] is None and row["reasons"][0].startswith(f"line {line}: ") and word in row["reasons"][0]
    assert "10 lines: 8 invalid input, 2 scored (the first: line 2" in done.err


def test_a_line_that_never_ends_is_refused_and_the_next_one_is_read(here: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlaif.cli.reward.MAX_LINE_BYTES", 1000)
    good = TASK | {"test_input": "add(2, 3)", "expected_output": "5", "solution": ADD}
    _write(here / "a.jsonl", [good | {"solution": ADD + "#" * 5000}, good])
    monkeypatch.setattr("rlaif.cli.reward.READ_BYTES", 64)
    for name, text in (("a.jsonl", ""), ("-", (here / "a.jsonl").read_text())):
        first, second = rlaif("reward", name, "--json", "--feedback", "execution", stdin=text).rows
        assert (first["outcome"], second["outcome"]) == ("invalid_input", "scored")


def test_standard_input_is_read_and_a_byte_order_mark_is_no_error(rlaif: Callable):
    line = json.dumps(TASK | {"test_input": "add(2, 3)", "expected_output": "5", "solution": ADD})
    done = rlaif("reward", "-", "--json", "--feedback", "execution", stdin="\ufeff" + line + "\n")
    assert [row["outcome"] for row in done.rows] == ["scored"]


def test_an_empty_file_has_no_answers(here: Path, rlaif: Callable):
    done = rlaif("reward", str(_write(here / "a.jsonl", [])), "--json", "--feedback", "execution")
    assert (done.code, done.out) == (0, "")


def test_people_get_sentences_with_escapes_made_visible(here: Path, rlaif: Callable):
    row = TASK | {"id": "\x1b[2Jevil", "test_input": "add(2, 3)", "expected_output": "5", "solution": ADD}
    done = rlaif("reward", str(_write(here / "a.jsonl", [row])), "--feedback", "execution")
    assert "\x1b" not in done.out and "reward" in done.out and "1/1 tests" in done.out and "1 line: 1 scored" in done.out


def test_execution_feedback_loads_no_model_library(solutions: Path):
    heavy = {"torch", "transformers", "openai", "scipy"}
    code = f"import sys\nfrom rlaif.cli.main import main\nmain(sys.argv[1:])\nprint(sorted({heavy} & set(sys.modules)))"
    words = [sys.executable, "-c", code, "reward", str(solutions), "--json", "--feedback", "execution"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_lines_are_read_only_as_they_are_answered(monkeypatch: pytest.MonkeyPatch):
    """However long the file, no more than one chunk of it is held."""
    monkeypatch.setattr("rlaif.cli.reward.CHUNK_LINES", 10)
    taken = 0

    def entries() -> Iterator[Entry]:
        nonlocal taken
        for taken in range(1, 1001):
            yield Entry(taken, None, Problem("p", "") if taken % 3 else None)

    class Engine:
        def score(self, problems: list, codes: list) -> list[Feedback]:
            assert len(problems) == len(codes) <= 10
            return [Feedback(0.5, "scored")] * len(problems)

    for answered, (entry, feedback) in enumerate(score_entries(entries(), Engine()), 1):
        assert entry.line == answered and taken - answered < 10
        assert feedback.outcome == ("scored" if entry.line % 3 else "invalid_input")
    assert answered == 1000


@pytest.mark.timeout(60)
def test_an_answer_comes_before_the_next_question_is_asked(here: Path):
    """Another program may hold the pipe open and wait for each answer."""
    words = [sys.executable, "-m", "rlaif", "reward", "-", "--json", "--feedback", "execution"]
    line = json.dumps(TASK | {"test_input": "add(2, 3)", "expected_output": "5", "solution": ADD}) + "\n"
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin and process.stdout
        for _ in range(3):
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["outcome"] == "scored"
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell a process's own peak memory")
def test_memory_does_not_grow_with_the_file(here: Path):
    """Twenty times the lines, less than 3 MB more at the peak: the longer file alone is 12 MB."""
    code = (
        "import re, sys\nfrom rlaif.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    good = json.dumps(TASK | {"test_input": "add(2, 3)", "expected_output": "5", "solution": ADD})
    peaks = []
    for count in (300, 6000):
        path = _write(here / f"{count}.jsonl", [good if place % 20 == 0 else '{"prompt": "' + "x" * 2000 for place in range(count)])
        words = [sys.executable, "-c", code, "reward", str(path), "--json", "--feedback", "execution"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        assert len(done.stdout.splitlines()) == count
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 3 * 1024


def test_the_judge_scores_the_same_lines(solutions: Path, with_model: Path, rlaif: Callable):
    with solutions.open("a") as file:
        file.write("oops\n")
    done = rlaif("judge", "score", solutions.name, "--json", "--judge", "local", "--judge.model", "smollm2-135m")
    assert done.code == 0, done.err
    assert [list(row) for row in done.rows] == [["id", "score", "principles", "error"]] * 4
    assert [row["id"] for row in done.rows] == [1, "wrong", "untested", None]
    for row in done.rows[:3]:
        assert 0 <= row["score"] <= 1 and row["error"] is None and "correctness" in row["principles"]
    assert done.rows[3]["score"] is None and done.rows[3]["error"].startswith("line 4: it is not JSON")


def test_a_judge_grades_what_has_no_tests_and_says_that_nothing_was_run(solutions: Path, with_model: Path, rlaif: Callable):
    done = rlaif("reward", solutions.name, "--json", "--judge", "local", "--judge.model", "smollm2-135m")
    right, wrong, untested = done.rows
    assert right["verified"] and right["reward"] >= 0.6 and right["judge"]["score"] is not None
    assert wrong["reward"] < 0.3
    assert (untested["outcome"], untested["verified"]) == ("scored", False) and 0.1 <= untested["reward"] <= 0.85


def test_a_judge_is_measured_on_labels_of_its_own_and_on_tests(here: Path, with_model: Path, rlaif: Callable):
    labelled = [TASK | {"id": place, "solution": ADD.replace("+", sign), "correct": sign == "+"} for place, sign in enumerate("+-*+")]
    tested = {"prompt": "Add", "difficulty": "hard", "solution": ADD, "test_input": "add(2, 3)", "expected_output": "5"}
    _write(here / "a.jsonl", [*labelled, tested, tested | {"solution": ADD.replace("+", "-")}, TASK | {"solution": ADD}, "oops"])
    done = rlaif("judge", "eval", "a.jsonl", "--json", "--judge", "local", "--judge.model", "smollm2-135m")
    assert done.code == 0, done.err
    (found,) = done.rows
    assert (found["left_out"], found["all"]["count"], found["all"]["correct"]) == (2, 6, 3)
    assert (found["easy"]["count"], found["hard"]["count"], found["hard"]["correct"]) == (4, 2, 1)
    for name in ("auroc", "pair_accuracy", "ece", "brier"):
        assert 0 <= found["all"][name] <= 1
    assert "pair_accuracy" in rlaif("judge", "eval", "a.jsonl", "--judge", "local", "--judge.model", "smollm2-135m").out


def test_figures_of_a_judge_by_hand():
    from rlaif.cli.judge import Labelled, figures

    items = [Labelled(0.9, True, "easy", "a"), Labelled(0.2, False, "easy", "a"), Labelled(0.4, True, "easy", "b"), Labelled(0.6, False, "easy", "b")]
    found = figures(items)
    assert (found["auroc"], found["pair_accuracy"], found["count"], found["correct"]) == (0.75, 0.5, 4, 2)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)
    assert figures(items[:1])["auroc"] is None
