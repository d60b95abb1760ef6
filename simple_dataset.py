"""The problems you train on. Edit `problems`: your own come up in every episode, next to the built-in ones.

Each problem says what to write (`prompt`), one call that tests it (`test_input`) and the value that call must return
(`expected_output`, as Python would print it: strings need their own quotes). More tests go into `tests`.
"""

from rlaif.problems import load_problems
from rlaif.problems.learner import problems_from_rows

problems = [
    {"prompt": "Write a function that adds two numbers", "test_input": "add(2, 3)", "expected_output": "5", "difficulty": "easy"},
    {
        "prompt": "Write a function that reverses a string",
        "difficulty": "easy",
        "tests": [
            {"input": "reverse_string('hello')", "expected": "'olleh'"},
            {"input": "reverse_string('')", "expected": "''"},
            {"input": "reverse_string('ab')", "expected": "'ba'"},
        ],
    },
]


def create_dataset():
    """(train, test): your problems and the built-in ones of the first level, and held-out ones of that level, which is never trained on."""
    mine = problems_from_rows(problems, path=__file__)
    return [*mine, *load_problems("builtin/intro", split="train")], load_problems("builtin/intro", split="test")
