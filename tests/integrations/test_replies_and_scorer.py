"""What a reply's code is, in time linear in the reply; and single samples that are scored together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from rlaif.errors import ProblemFileError, UsageError
from rlaif.integrations import RewardUnavailable, Scorer
from rlaif.integrations.replies import code_of_reply, text_of, without_prompt
from rlaif.integrations.scorer import problem_of_row, reward_or_raise
from rlaif.problems.export import seal
from rlaif.types import Feedback, Problem
from tests.integrations.conftest import CountingEngine, fenced

LAST_WORDS = " of the last twelve words of a prompt cut off at its beginning: go"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```python\nx = 1\n```\nbetter:\n```py\nx = 2\n```<|im_end|>", "x = 2\n"),
        ("```bash\nls\n```\nthen\n```python\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```text\noutput\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```python\nx = (", "x = 1\n"),
        ("```python\nx = 1", "x = 1\n"),
        ("x = 1", "x = 1\n"),
        ("x = 1 </s><eos>\n", "x = 1\n"),
        ("<think>```python\nbad\n```</think>```\nx = 1\n```", "x = 1\n"),
        ("<think>maybe ```python\nbad\n```", ""),
        ("", "\n"),
    ],
)
def test_the_code_of_a_reply(reply: str, code: str) -> None:
    assert code_of_reply(reply) == code


def test_no_reply_takes_longer_than_its_length() -> None:
    started = time.monotonic()
    for text in ("```" + " " * 1_000_000 + "x", " " * 1_000_000 + "<|", "```\n" * 200_000, "<|" * 500_000, "\n" * 1_000_000 + "</s>"):
        code_of_reply(text)
    without_prompt("a " * 500_000, "b " * 500_000)
    assert time.monotonic() - started < 5


def test_completions_are_strings_or_messages() -> None:
    said = [
        {"role": "assistant", "content": "a"},
        {"role": "tool", "content": "no"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]
    assert text_of(said) == "a\nb" and text_of("c") == "c" and text_of([{"role": "assistant", "content": None}]) == ""
    with pytest.raises(TypeError, match="int"):
        text_of(3)


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("Say hi.\nhi", "Say hi.\n", "hi"),
        ("<s> Say hi.\nhi", "Say hi.\n", "hi"),
        ("<s>Say   hi.\nhi", "Say hi.\n", "\nhi"),
        (
            "...the last twelve words of a prompt that was cut off at its beginning: go hi",
            "x" * 900 + " twelve words of a prompt that was cut off at its beginning: go",
            " hi",
        ),
        ("something else", "Say hi.", None),
    ],
)
def test_the_response_in_a_query(query: str, prompt: str, response: str | None) -> None:
    assert without_prompt(query, prompt) == response


def test_samples_that_come_in_together_are_scored_together() -> None:
    engine = CountingEngine()

    async def many() -> list[Feedback]:
        return await asyncio.gather(*(made.ascore(Problem("p", ""), "x" * place) for place in range(50)))

    with Scorer(engine=engine) as made:
        found = asyncio.run(many())
    assert [feedback.reward for feedback in found] == [place / 100 for place in range(50)], "each has its own answer"
    assert len(engine.batches) < 10 and max(engine.batches) > 10


def test_one_bad_sample_costs_the_others_nothing() -> None:
    with Scorer(engine=CountingEngine()) as made:
        first = made.submit(Problem("p", ""), "first")  # occupies the lane while the others come in
        futures = [made.submit(Problem("p", ""), code) for code in ("a", "boom", "bb")]
        assert first.result().reward == 0.05 and [futures[0].result().reward, futures[2].result().reward] == [0.01, 0.02]
        with pytest.raises(ValueError, match="one bad sample"):
            futures[1].result()
    with pytest.raises(RewardUnavailable, match="closed"):
        made.submit(Problem("p", ""), "x")


def test_a_sample_that_nobody_waits_for_is_not_scored() -> None:
    engine = CountingEngine()
    with Scorer(engine=engine) as made:
        made.submit(Problem("p", ""), "first")
        time.sleep(0.02)
        waiting = [made.submit(Problem("p", ""), "x") for _ in range(5)]
        assert all(future.cancel() for future in waiting)
    assert engine.batches == [1]


def test_equal_ids_of_different_problems_are_kept_apart(problems: list[Problem]) -> None:
    from dataclasses import replace

    one, same, other = (problem_of_row(seal(problem)) for problem in (problems[0], problems[0], replace(problems[0], prompt="something else")))
    assert one.id == same.id != other.id


def test_what_cannot_be_scored_is_told_from_what_nobody_could_score() -> None:
    with pytest.raises(RewardUnavailable, match="broke"):
        reward_or_raise(Feedback(None, "infra_failure", reasons=("it broke",)))
    with pytest.raises(UsageError, match="no tests"):
        reward_or_raise(Feedback(None, "invalid_input", reasons=("no tests",)))
    assert reward_or_raise(Feedback(0.0, "policy_failure")) == 0.0
    for text in (None, 3, "{", '{"id": 1}'):
        with pytest.raises(ProblemFileError):
            problem_of_row(text)


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(UsageError, match="Unknown key 'feedbck'"):
        Scorer(feedbck="execution")
    with pytest.raises(UsageError, match="needs a judge"):
        Scorer(feedback="ai", judge={"kind": "none"})


@pytest.mark.timeout(60)
def test_a_trainer_that_never_closes_the_scorer_can_end_and_no_model_library_is_loaded(problems: list[Problem]) -> None:
    code = (
        "import asyncio, sys\nfrom rlaif.integrations import openrlhf, trl, verl\n"
        "print(asyncio.run(verl.compute_score('rlaif', sys.argv[1], sys.argv[2], {}, feedback='execution')))\n"
        "print(sorted({'torch', 'transformers', 'openai', 'scipy', 'fastapi'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, fenced(problems[0].reference), seal(problems[0])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=40, check=True)
    score, loaded = done.stdout.splitlines()
    assert "'acc': 1.0" in score and loaded == "[]"
