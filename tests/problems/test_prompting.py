"""What the policy is shown, and what is taken as its answer."""

from __future__ import annotations

import pytest

from rlaif.problems import problem_from_dict
from rlaif.problems.export import chat
from rlaif.problems.prompting import Prompt, build_prompt, extract_code, task_text
from rlaif.problems.pysource import needed_for, parses
from rlaif.types import Problem, TestCase

MBPP = {
    "task_id": 2,
    "prompt": "Write a function to double.",
    "code": "def double(x):\n    return 2 * x",
    "test_imports": [],
    "test_list": ["assert double(1) == 2", "assert double(77) == 154", "assert double(88) == 176"],
}


class Plain:
    """A tokenizer without a chat template."""

    chat_template = None


@pytest.mark.parametrize(
    ("test", "seen"),
    [
        (TestCase("shown", "double(3)", "6"), "double(3) returns 6"),
        (TestCase("shown", "3\n", "6\n", "stdio"), "Input:\n3\nOutput:\n6"),
        (TestCase("shown", "assert double(3) == 6", form="code"), "Your code must pass this test:\nassert double(3) == 6"),
    ],
)
def test_a_shown_test_of_any_form_is_shown_everywhere(test: TestCase, seen: str) -> None:
    problem = Problem("p", "Double it.", tests=(test, TestCase("graded", "double(41)", "82")), entry_point="double")
    comments = "\n".join(f"# {line}" for line in seen.splitlines())
    assert seen in task_text(problem) and seen in chat(problem)[-1]["content"] and comments in build_prompt(problem, Plain()).text
    for text in (task_text(problem), str(chat(problem)), build_prompt(problem, Plain()).text):
        assert "82" not in text
        assert text.count("double(3)") <= 1


def test_mbpp_shows_its_first_assert_and_no_other() -> None:
    problem = problem_from_dict(MBPP, path="mbpp.jsonl", line=1)
    for text in (task_text(problem), chat(problem)[-1]["content"]):
        assert "assert double(1) == 2" in text and "77" not in text and "88" not in text


ANSWER = """\
import math
from typing import List

LIMIT = 3

def helper(x):
    return x * LIMIT

@staticmethod
def area(r):
    return helper(math.pi)

def check():
    assert area(1) == 0, "wrong test"

check()
print(area(2))
if __name__ == "__main__":
    print(area(3)
"""


def test_the_models_own_tests_are_no_part_of_an_answer_to_a_published_set() -> None:
    kept = needed_for(ANSWER, "area")
    assert parses(kept) and "wrong test" not in kept and "print" not in kept
    for line in ("import math", "LIMIT = 3", "def helper(x):", "@staticmethod", "def area(r):"):
        assert line in kept.splitlines()
    assert needed_for("x = ", "area") == "x = " and needed_for("def other():\n    pass\n", "area") == "def other():\n    pass\n"
    assert needed_for("a = 1; b = 2\ndef f():\n    return a + b\n", "f") == "a = 1; b = 2\ndef f():\n    return a + b\n"
    assert needed_for("def f():\n    return '\x0c'\nf(", "f") == "def f():\n    return '\x0c'\n"


def test_for_our_own_problems_all_that_was_written_is_the_answer() -> None:
    prompt = Prompt("", "def area(r):", ("\n```",))
    text = "\n    return r * r\n\nassert area(2) == 5\n"
    own = Problem("p", "Area.", entry_point="area", signature="def area(r):")
    public = Problem("p", "Area.", entry_point="area", signature="def area(r):", imported=True)
    assert "assert" in extract_code(own, prompt, text)
    assert extract_code(public, prompt, text) == "def area(r):\n    return r * r\n"
