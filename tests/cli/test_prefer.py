"""`rlaif prefer`: the examples of its help run, bad input is named, and its help is instant."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.judge.writer import Written
from rlaif.problems import load_problems
from tests.cli.test_bad_input import lay_out, refuses

PROBLEMS = [
    {
        "id": f"p{i}",
        "prompt": f"Add {i}",
        "split": "train" if i % 2 else "test",
        "tests": [{"input": f"add_{i}({n})", "expected": str(n + i)} for n in range(5)],
    }
    for i in range(8)
]


def pair(number: int) -> dict:
    """One pair of programs for the tiny model, which has no chat template."""
    codes = [f"def f(xs):\n    return [x {sign} {number} for x in xs]\n" for sign in "+-"]
    return {"prompt": f"Add {number}", "chosen": codes[0], "rejected": codes[1], "problem_id": f"q{number}", "label_probability": 0.9}


def write(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


class KnowsTheReference:
    """The writer that the example's server would be: it finds the task among the built-in ones and writes the reference."""

    name = "api:qwen"

    def __init__(self) -> None:
        self.references = {problem.prompt.strip(): problem.reference for problem in load_problems("builtin", split="train")}

    def write(self, questions, *, max_tokens, seed, openings=None):
        if openings is None:
            return [Written("An edge case is missing here, namely whatever nobody thought about before writing this.") for _ in questions]
        texts = [messages[0]["content"] for messages in questions]
        found = [max((task for task in self.references if task in text), key=len) for text in texts]
        return [Written(f"```python\n{self.references[task]}\n```") for task in found]


@pytest.mark.parametrize("command", ["prefer collect", "prefer reward-model", "prefer dpo", "prefer revise"])
def test_the_example_of_the_help_runs(command: str, with_model: Path, here: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    if command == "prefer dpo":
        pytest.importorskip("trl")
    monkeypatch.setattr("rlaif.judge.embedded.SHIPPED", here / "no_adapter")
    if command != "prefer collect":
        write(here / "pairs" / "preferences.jsonl", *map(pair, range(10)))
    monkeypatch.setattr("rlaif.train.revision.make_writer", lambda *args, **kwargs: KnowsTheReference())
    shown = rlaif(*command.split(), "--help")
    assert shown.code == 0 and shown.err == ""
    assert command != "prefer collect" or rlaif("prefer", "--help").out.count(re.search(r"Example:\n +(rlaif .*)", shown.out)[1]) == 1
    example = re.search(r"Example:\n +(rlaif .*)", shown.out)
    assert example, "the help shows no example"
    words = shlex.split(example[1])[1:]
    done = rlaif(*words)
    assert done.code == 0, done.err
    folder = here / words[words.index("--output_dir") + 1]
    assert (folder / "report.html").exists() and (folder / "summary.json").exists() and "Traceback" not in done.err
    again = rlaif(*words)
    assert again.code == 2 and "--resume" in again.err, "what is there is not overwritten"


def test_json_goes_to_stdout_and_prose_to_stderr(with_model: Path, here: Path, rlaif: Callable):
    write(here / "problems.jsonl", *PROBLEMS)
    words = "prefer collect --problems problems.jsonl --rounds 1 --batch_size 2 --group_size 2 --max_new_tokens 4 --judge none --json"
    done = rlaif(*words.split(), "--output_dir", "out")
    assert done.code == 0, done.err
    (row,) = done.rows
    assert row["samples"] == 4 and row["judge"] is None and "Round 1/1" in done.err
    assert rlaif(*words.split(), "--output_dir", "out", "--resume").code == 0


BAD: list[tuple[str, int, list[str]]] = [
    ("prefer colect", 2, ["prefer colect", "rlaif prefer collect"]),
    ("prefer collect --round 3", 2, ["did you mean --rounds?"]),
    ("prefer collect --rounds 0", 2, ["--rounds", "greater than or equal to 1"]),
    ("prefer collect --group_size 1", 2, ["group_size must be at least 2"]),
    ("prefer collect --resume", 2, ["--output_dir"]),
    ("prefer collect --resume --overwrite", 2, ["exclude each other"]),
    ("prefer collect --problems nowhere.jsonl", 2, ["nowhere.jsonl"]),
    ("prefer collect --problems problems.jsonl", 2, ["--batch-size 6", "4 training problems"]),
    ("prefer collect --output_dir occupied", 2, ["occupied", "not empty"]),
    ("prefer collect --output_dir run", 2, ["already holds a run", "--resume"]),
    ("prefer collect --output_dir new", 3, ["smollm2-135m", "not on this machine"]),
    ("prefer collect --output_dir new --judge reward_model --model tiny", 2, ["needs its folder", "--judge.model FOLDER"]),
    ("prefer reward-model", 2, ["needs preference pairs", "rlaif prefer collect"]),
    ("prefer reward-model --preferences nowhere", 2, ["No preference file at nowhere"]),
    ("prefer reward-model --preferences occupied", 2, ["occupied holds no preferences.jsonl"]),
    ("prefer reward-model --preferences not_json.jsonl", 2, ["not_json.jsonl, line 1", "not JSON"]),
    ("prefer reward-model --preferences no_prompt.jsonl", 2, ["line 2, field 'prompt'", "explicit prompt"]),
    ("prefer reward-model --preferences empty.jsonl", 2, ["no pair"]),
    ("prefer reward-model --preferences one_problem.jsonl", 2, ["about one problem"]),
    ("prefer reward-model --preferences good.jsonl --held_out_share 1", 2, ["held_out_share", "less than 1"]),
    ("prefer dpo", 2, ["needs preference pairs"]),
    ("prefer dpo --preferences good.jsonl --min_probability 1", 2, ["sure enough", "--min-probability"]),
    ("prefer dpo --preferences good.jsonl --beta 0", 2, ["--beta", "greater than 0"]),
    ("prefer dpo --preferences good.jsonl --output_dir new", 3, ["smollm2-135m", "not on this machine"]),
    ("prefer revise --judge none --model tiny --output_dir new", 2, ["cannot write", "--judge api"]),
    ("prefer revise --judge api --model tiny --output_dir new", 2, ["--judge.model"]),
    ("prefer revise --judge loca", 2, ["did you mean local?"]),
    ("judge score one.jsonl --judge reward_model --judge.model occupied", 3, ["occupied holds no reward model"]),
    ("train --judge reward_model --dry-run --model tiny --problems problems.jsonl --batch_size 2", 0, []),
]


@pytest.mark.parametrize(("command", "code", "words"), BAD, ids=[row[0] for row in BAD])
def test_bad_input_gives_a_clear_error_and_loses_nothing(command: str, code: int, words: list[str], here: Path, tiny: Path, rlaif: Callable):
    lay_out(here)
    write(here / "problems.jsonl", *PROBLEMS)
    write(here / "no_prompt.jsonl", pair(1), {"chosen": "a", "rejected": "b"})
    write(here / "one_problem.jsonl", pair(1), pair(1))
    write(here / "good.jsonl", *map(pair, range(6)))
    (here / "tiny").symlink_to(tiny)
    done = refuses(command, code, words, here, rlaif)
    assert code == 0 or any(line.startswith("Try: ") for line in done.err.splitlines()), "no next step"


@pytest.fixture
def tiny(model_cache: Path) -> Path:
    return model_cache / "models" / "smollm2-135m"


def test_the_help_loads_no_torch():
    code = "import sys; from rlaif.cli.main import main; main(['prefer', 'dpo', '--help']); sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
