"""Evaluation and scoring of given completions, with a sampler and a runner that need no model and no sandbox."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from rlaif.config import EvalConfig
from rlaif.errors import BelowThreshold, RunFailed, UsageError
from rlaif.evals import EvalResult, compare, compare_with_controls, evaluate, fail_under, program_of, score_completions, verdict, wilson
from rlaif.problems import problem_from_dict
from rlaif.types import Completion, Problem

ADD = {
    "id": "t/add",
    "topic": "numbers",
    "difficulty": "easy",
    "prompt": "Add two numbers.",
    "signature": "def add(a, b):",
    "entry_point": "add",
    "tests": [
        {"role": "shown", "input": "add(1, 2)", "expected": "3"},
        {"role": "graded", "input": "add(0, 0)", "expected": "0"},
        {"role": "held_out", "input": "add(2, 5)", "expected": "7"},
    ],
}
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'import math\n\n\ndef root(x: float) -> float:\n    """ The square root.\n    >>> root(4.0)\n    2.0\n    """\n',
    "entry_point": "root",
    "canonical_solution": "    return math.sqrt(x)\n",
    "test": "def check(candidate):\n    assert candidate(4.0) == 2.0\n    assert candidate(9.0) == 3.0\n",
}
RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"


def problem(obj: dict, **changes: object) -> Problem:
    return problem_from_dict({**obj, **changes}, path="p.jsonl", line=1)


def sampler(codes: dict[str, list[str]], finish: str = "eos"):
    return lambda problems, n: [[Completion(p.id, c, c, finish_reason=finish) for c in codes[p.id][:n]] for p in problems]


def many(count: int) -> list[Problem]:
    return [problem(ADD, id=f"t/{i}", difficulty=["easy", "medium", "hard"][i % 3], topic=f"topic{i % 2}") for i in range(count)]


def test_counts_held_out_tests_but_never_the_shown_one(runner) -> None:
    knows_graded = "def add(a, b):\n    return 3 if a == 1 else 0\n"
    knows_hidden = "def add(a, b):\n    return 0 if a == 1 else a + b\n"
    task = problem(ADD)
    assert evaluate(sampler({"t/add": [knows_graded]}), [task], runner, EvalConfig()).success.value == 0.0
    assert evaluate(sampler({"t/add": [knows_hidden]}), [task], runner, EvalConfig()).success.value == 1.0
    result = evaluate(sampler({"t/add": [knows_graded, knows_hidden]}), [task], runner, EvalConfig(samples=2, k=(1, 2)))
    assert (result.rows[0].samples, result.rows[0].passed) == (2, 1)
    assert (result.pass_at(1).value, result.pass_at(2).value) == (0.5, 1.0)
    assert result.failures == {"wrong_answer": 1}


def test_figures_per_difficulty_topic_and_truncation(runner) -> None:
    problems = many(12)
    codes = {p.id: [RIGHT if p.difficulty == "easy" else WRONG] for p in problems}
    result = evaluate(sampler(codes, "length"), problems, runner, EvalConfig(), model="m")
    assert {name: interval.value for name, interval in result.by_difficulty().items()} == {"easy": 1.0, "medium": 0.0, "hard": 0.0}
    assert set(result.by_topic()) == {"topic0", "topic1"}
    assert result.truncated_share == 1.0
    assert result.success == wilson(4, 12)
    assert any("33.3%" in line for line in result.lines())
    topic = result.by_topic()["topic1"]
    assert any(line.strip().startswith("topic1") and str(topic) in line for line in result.lines())


def test_a_fault_of_the_machine_is_no_failure(runner) -> None:
    problems = many(2)
    result = evaluate(sampler({"t/0": ["INFRA"], "t/1": [RIGHT]}), problems, runner, EvalConfig())
    assert result.infra_failures == 1 and result.success.value == 1.0 and result.success.count == 1


def test_result_survives_json(runner, tmp_path: Path) -> None:
    result = evaluate(sampler({p.id: [RIGHT, WRONG] for p in many(5)}), many(5), runner, EvalConfig(samples=2, k=(1, 2)), model="m")
    result.save(tmp_path / "r.json")
    assert EvalResult.load(tmp_path / "r.json") == result
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["success_rate"]["value"] == 0.5 and stored["pass_at"]["2"]["value"] == 1.0
    (tmp_path / "r.json").write_text('{"model": 1}')
    with pytest.raises(UsageError, match="not a saved evaluation"):
        EvalResult.load(tmp_path / "r.json")


def test_refuses_what_cannot_be_measured(runner) -> None:
    with pytest.raises(UsageError, match="pass@5 needs at least 5"):
        evaluate(sampler({}), many(1), runner, EvalConfig(k=(1, 5)))
    with pytest.raises(UsageError, match="Nothing to evaluate"):
        evaluate(sampler({}), [problem({"prompt": "p"})], runner, EvalConfig())
    with pytest.raises(RunFailed, match="broke its word"):
        evaluate(lambda problems, n: [], many(1), runner, EvalConfig())


def test_imported_sets_count_every_assert(runner) -> None:
    mbpp = {"task_id": 2, "prompt": "p", "code": WRONG, "test_list": ["assert add(1, 2) == 3", "assert add(5, 0) == 5", "assert add(7, 0) == 7"]}
    assert evaluate(sampler({"Mbpp/2": [WRONG]}), [problem(mbpp)], runner, EvalConfig()).success.value == 0.0


@pytest.mark.parametrize(
    ("rate", "word"), [(wilson(90, 100), "excellent"), (wilson(55, 100), "good progress"), (wilson(10, 100), "more episodes needed")]
)
def test_words(rate, word: str) -> None:
    assert word in verdict(rate) and "interval" in verdict(rate)


def test_words_admit_doubt() -> None:
    assert "could also be called" in verdict(wilson(5, 10))
    assert "could also be called" not in verdict(wilson(990, 1000))
    assert "nothing could be judged" in verdict(None)


def test_compare_pairs_the_problems(runner) -> None:
    problems = many(30)
    before = evaluate(sampler({p.id: [WRONG] for p in problems}), problems, runner, EvalConfig(), model="base")
    after = evaluate(sampler({p.id: [RIGHT if i < 20 else WRONG] for i, p in enumerate(problems)}), problems, runner, EvalConfig(), model="new")
    comparison = compare(before, after)
    assert (comparison.overall.wins, comparison.overall.losses) == (20, 0)
    assert comparison.lines()[0].startswith("Better") and comparison.overall.p_value < 0.001
    assert compare(after, before).lines()[0].startswith("Worse")
    assert compare(before, before).lines()[0].startswith("No clear change")
    assert sum(part.wins for part in comparison.by_topic.values()) == 20 and set(comparison.by_topic) == {"topic0", "topic1"}
    even = [i for i in range(30) if problems[i].topic == "topic0"]
    assert comparison.by_topic["topic0"].wins == sum(i < 20 for i in even) and comparison.by_topic["topic0"].ties == sum(i >= 20 for i in even)
    assert sum(part.wins for part in comparison.by_difficulty.values()) == 20
    assert json.loads(json.dumps(comparison.to_dict()))["by_topic"]["topic1"]["wins"] == comparison.by_topic["topic1"].wins
    assert compare_with_controls(before, {"sft": before, "rl": after})[1]["wins"] == 20


def test_compare_refuses_another_protocol(runner) -> None:
    result = evaluate(sampler({p.id: [RIGHT] for p in many(3)}), many(3), runner, EvalConfig())
    with pytest.raises(UsageError, match="max_new_tokens 256 and 64"):
        compare(result, replace(result, protocol=replace(result.protocol, max_new_tokens=64)))
    with pytest.raises(UsageError, match="different problems"):
        compare(result, replace(result, rows=result.rows[1:]))


def test_fail_under(runner) -> None:
    result = evaluate(sampler({p.id: [RIGHT if i else WRONG] for i, p in enumerate(many(2))}), many(2), runner, EvalConfig())
    fail_under(result, 0.5)
    with pytest.raises(BelowThreshold) as caught:
        fail_under(result, 0.51)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("completion", "passes"),
    [
        ("    return math.sqrt(x)\n", True),
        ("    return math.sqrt(x)\n\n\ndef other():\n    pass\n", True),
        ("def root(x):\n    return x ** 0.5\n", True),
        ("import math\ndef root(x):\n    return math.sqrt(x)", True),
        ("Sure!\n```python\ndef root(x):\n    return x ** 0.5\n```\nThat is all.", True),
        ("```python\n    return math.sqrt(x)\n```", True),
        ("    def root(y):\n        return y ** 0.5\n    return root(x)\n", True),
        ("return math.sqrt(x)\n", False),  # no indentation: wrong behind the prompt, so wrong here
        ("", False),
        ("def root(x:\n    return 2", False),
    ],
)
def test_humaneval_completions(runner, tmp_path: Path, completion: str, passes: bool) -> None:
    task = problem(HUMANEVAL)
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"task_id": "HumanEval/900", "completion": completion}) + "\n")
    scores = score_completions(path, [task], runner)
    assert scores.result.success.value == passes, program_of(task, completion)


def test_bad_lines_are_named_and_the_rest_is_scored(runner, tmp_path: Path) -> None:
    lines = [
        json.dumps({"task_id": "t/add", "completion": RIGHT}).encode(),
        b"{not json",
        b'{"completion": "x"}',
        b'{"task_id": "t/nobody", "completion": "x"}',
        b'{"task_id": "t/add"}',
        b'{"task_id": "t/add", "completion": 5}',
        b"\xff\xfe",
        b"[1]",
        b"",
        b'{"task_id": "t/add", "completion": ' + b"[" * 100_000,
        json.dumps({"task_id": "ADD", "solution": WRONG}).encode(),
    ]
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\n".join(lines))
    scores = score_completions(path, [problem(ADD), problem(ADD, id="t/other")], runner, k=(1, 2))
    assert [bad.line for bad in scores.bad_lines] == [2, 3, 4, 5, 6, 7, 8, 10]
    assert scores.scored == 2 and scores.result.success.value == 0.5 and scores.result.pass_at(2).value == 1.0
    assert scores.missing == ("t/other",)
    assert json.dumps(scores.to_dict())
    notes = score_completions(path, [problem(ADD)], runner, k=(1, 3)).result.notes
    assert "no pass@3: no problem has 3 completions, and 2 is the most that one has" in notes
    path.write_bytes(lines[0] + b"\n" + b"bad\n" * 500)
    scores = score_completions(path, [problem(ADD)], runner)
    assert scores.bad_count == 500 and len(scores.bad_lines) == 100, "all are counted, the first hundred described"
    path.write_text("nothing\n")
    with pytest.raises(UsageError, match="line 1: it is not JSON"):
        score_completions(path, [problem(ADD)], runner)
    with pytest.raises(UsageError, match="Cannot read"):
        score_completions(tmp_path / "none.jsonl", [problem(ADD)], runner)


def test_mbpp_task_numbers_find_their_problem(runner, tmp_path: Path) -> None:
    task = problem({"task_id": 11, "prompt": "p", "code": RIGHT, "test_list": ["assert add(1, 2) == 3"]})
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps({"task_id": name, "completion": RIGHT}) for name in (11, "11", "Mbpp/11", "mbpp/11")))
    assert score_completions(path, [task], runner).scored == 4


def test_memory_does_not_grow_with_the_file(runner, tmp_path: Path) -> None:
    padding = "# " + "x" * 2000 + "\n"

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as stream:
            for i in range(count):
                stream.write(json.dumps({"task_id": f"t/{i % 10}", "completion": RIGHT + padding}) + "\n")
        tracemalloc.start()
        scores = score_completions(path, many(10), runner)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert scores.scored == count
        return memory

    peak(10)  # warm caches
    assert peak(2000) < peak(200) + 200_000, "2,000 lines hold 3.6 MB more text than 200"
