"""Bad input, one row each: what was typed, the exit code, and words that the message must hold. Nothing is lost and no traceback is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD_PROBLEM = {"id": "mine/add", "prompt": "Add two numbers", "reference": "def add(a, b):\n    return a + b\n", "difficulty": "easy"}
TESTS = [{"role": "graded", "input": f"add({n}, 1)", "expected": str(n + 1)} for n in range(4)]


def _file(path: Path, *rows: object) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def lay_out(here: Path) -> None:
    """Everything that the rows below name: broken files, broken models, runs in every state."""
    _file(here / "broken.toml", "episodes = = 3")
    _file(here / "unknown.toml", "episods = 3")
    _file(here / "nested.toml", "[judge]", 'knd = "api"')
    _file(here / "value.toml", 'episodes = "many"')
    _file(here / "flat.toml", 'judge = "api"')
    (here / "binary.toml").write_bytes(b"\xff\xfe\x00")
    _file(here / "not_json.jsonl", "{", "oops")
    _file(here / "missing.jsonl", GOOD_PROBLEM | {"tests": TESTS}, {"prompt": "Twice", "tests": [{"input": "twice(1)"}]})
    _file(here / "literal.jsonl", {"prompt": "Say hello", "test_input": "hello()", "expected_output": "hello there"})
    _file(here / "wrong_reference.jsonl", GOOD_PROBLEM | {"reference": "def add(a, b):\n    return a - b\n", "tests": TESTS})
    _file(here / "empty.jsonl")
    _file(here / "unknown_task.jsonl", {"task_id": "nope", "completion": "x = 1"})
    _file(here / "one.jsonl", GOOD_PROBLEM | {"tests": TESTS, "split": "test"})
    _file(here / "wrong_answer.jsonl", {"task_id": "mine/add", "completion": "def add(a, b):\n    return 0\n"})
    _file(here / "kept.jsonl", "precious")
    _file(here / "a_file", "precious")
    (here / "occupied").mkdir()
    _file(here / "occupied" / "thesis.txt", "precious")
    for name, state in (("run", "interrupted"), ("runs/unfinished", "interrupted")):
        (here / name).mkdir(parents=True)
        _file(here / name / "config.json", {"rlaif": {"format": 1, "config": {"model": "smollm2-135m"}}})
        _file(here / name / "status.json", {"state": state, "episode": 7, "episodes": 20})
    (here / "half_downloaded").mkdir()
    _file(here / "half_downloaded" / "config.json", {"model_type": "llama"})
    (here / "broken_model").mkdir()
    _file(here / "broken_model" / "config.json", {"model_type": "no_such_architecture"})
    (here / "broken_model" / "model.safetensors").write_bytes(b"\x00" * 100)
    (here / "torn_weights").mkdir()
    _file(here / "torn_weights" / "config.json", {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "vocab_size": 10})
    (here / "torn_weights" / "model.safetensors").write_bytes(b"\x10")


def refuses(command: str, code: int, words: list[str], here: Path, rlaif: Callable) -> Any:
    """Run it, and check the exit code, the words of the message and that every file is as it was; returns what was said."""
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    done = rlaif(*command.split())
    assert done.code == code, done.err
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err and "bug" not in done.err
    assert {path: path.read_bytes() for path in before} == before
    return done


BAD: list[tuple[str, int, list[str]]] = [
    # commands and flags
    ("trian", 2, ["Unknown command 'trian'", "rlaif train"]),
    ("--halp", 2, ["Unknown command", "rlaif --help"]),
    ("problems lst", 2, ["problems lst", "rlaif problems list"]),
    ("judge scroe", 2, ["rlaif judge score"]),
    ("train --episods 3", 2, ["Unknown flag --episods", "did you mean --episodes?"]),
    ("train --judge.knd api", 2, ["did you mean --judge.kind?"]),
    ("train --episodes", 2, ["--episodes needs a value"]),
    ("train --episodes 0", 2, ["--episodes", "greater than or equal to 1"]),
    ("train --episodes many", 2, ["--episodes", "'many'", "integer"]),
    ("train --batch_size 1.5", 2, ["--batch_size", "integer"]),
    ("train --temperature 0", 2, ["--temperature", "greater than 0"]),
    ("train --gamma 2", 2, ["--gamma", "less than or equal to 1"]),
    ("train --algo grop", 2, ["--algo", "did you mean grpo?"]),
    ("train --device tpu", 2, ["--device", "cuda"]),
    ("train --judge apii", 2, ["--judge.kind", "did you mean api?"]),
    ("train some words", 2, ["Unexpected: some, words"]),
    ("train --algo grpo --group-size 1", 2, ["group_size must be at least 2"]),
    ("train --resume --overwrite", 2, ["exclude each other"]),
    ("train --feedback ai --judge none", 2, ["needs a judge"]),
    # config files
    ("train --config nowhere.toml", 2, ["nowhere.toml", "check the path"]),
    ("train --config occupied", 2, ["occupied", "directory"]),
    ("train --config broken.toml", 2, ["broken.toml is not valid TOML", "line 1"]),
    ("train --config binary.toml", 2, ["binary.toml is not valid TOML"]),
    ("train --config unknown.toml", 2, ["Unknown key 'episods' in unknown.toml", "'episodes'"]),
    ("train --config nested.toml", 2, ["Unknown key 'judge.knd'", "did you mean 'judge.kind'?"]),
    ("train --config value.toml", 2, ["'episodes' in value.toml", "'many'"]),
    ("train --config flat.toml", 2, ["'judge' in flat.toml", "[judge]"]),
    # problems
    ("train --problems nowhere.jsonl", 2, ["nowhere.jsonl", "no such file"]),
    ("train --problems not_json.jsonl", 2, ["not_json.jsonl, line 1", "not JSON"]),
    ("train --problems missing.jsonl", 2, ["missing.jsonl, line 2, field 'tests[0].expected'"]),
    ("train --problems literal.jsonl", 2, ["line 1, field 'expected_output'", "quotes"]),
    ("train --problems empty.jsonl", 2, ["empty.jsonl", "no problem"]),
    ("train --problems builtin/nonsense", 2, ["No built-in level or topic 'nonsense'", "strings"]),
    ("train --batch_size 5000", 2, ["5000", "training problems"]),
    ("problems list --topic nonsense", 2, ["No problem of builtin", "strings"]),
    ("problems check wrong_reference.jsonl", 1, ["1 of 1 problems are not fit"]),
    ("problems export --limit 1 --out kept.jsonl", 2, ["kept.jsonl exists", "--force"]),
    ("problems export --out /dev/full --force", 1, ["disk is full"]),
    # folders and runs
    ("train --output_dir occupied", 2, ["occupied", "not empty"]),
    ("train --output_dir occupied --overwrite", 2, ["not a run's folder"]),
    ("train --output_dir run", 2, ["already holds a run", "--resume", "--overwrite", "episode 7 of 20"]),
    ("train --output_dir run --dry-run", 2, ["--resume", "--overwrite"]),
    ("train --output_dir a_file", 2, ["is a file"]),
    ("train --resume", 2, ["--output_dir"]),
    ("train --resume --output_dir nowhere", 2, ["No run at nowhere"]),
    ("report nowhere", 2, ["No run at nowhere"]),
    ("report occupied", 2, ["not a run's folder"]),
    ("report a b c", 2, ["one run or two"]),
    # models
    ("train --model ./nowhere --dry-run", 3, ["No folder at ./nowhere"]),
    ("train --model Qwen/Qwen3-O.6B --dry-run", 3, ["not on this machine", "Qwen/Qwen3-0.6B"]),
    ("train --dry-run", 3, ["smollm2-135m", "not on this machine"]),
    ("evaluate", 3, ["no finished model", "episode 7 of 20", "--resume"]),
    ("evaluate --model_path run", 3, ["no finished model"]),
    ("evaluate --model_path half_downloaded", 3, ["half_downloaded holds no model", "weights"]),
    ("evaluate --model_path broken_model", 3, ["broken_model", "no_such_architecture"]),
    ("evaluate --model_path torn_weights", 3, ["torn_weights", "weights is broken or was cut off"]),
    ("chat --model_path ./nowhere", 3, ["No folder at ./nowhere"]),
    # evaluation
    ("evaluate --model_path smollm2-135m --k 5 --samples 2", 2, ["pass@5", "--samples 5"]),
    ("evaluate --fail-under 40", 2, ["--fail_under", "less than or equal to 1"]),
    ("evaluate --completions nowhere.jsonl", 2, ["nowhere.jsonl"]),
    ("evaluate --completions unknown_task.jsonl --problems one.jsonl", 2, ["no problem is called 'nope'"]),
    ("evaluate --completions wrong_answer.jsonl --problems one.jsonl --baseline base", 2, ["--baseline"]),
    ("evaluate --completions wrong_answer.jsonl --problems one.jsonl --fail-under 0.5", 4, ["below 50"]),
    # reward and judge
    ("reward", 2, ["needs FILE", "rlaif reward solutions.jsonl"]),
    ("reward nowhere.jsonl", 2, ["nowhere.jsonl", "No such file"]),
    ("reward occupied", 2, ["occupied", "directory"]),
    ("reward one.jsonl --feedback ai --judge none", 2, ["needs a judge"]),
    ("reward one.jsonl --judge local", 2, ["needs a model", "--judge.model"]),
    ("reward one.jsonl --judge api", 2, ["--judge.model"]),
    ("reward one.jsonl --judge.constitution nowhere.toml", 2, ["nowhere.toml"]),
    ("reward one.jsonl", 3, ["smollm2-135m", "not on this machine"]),
    ("reward one.jsonl --judge local --judge.adapter occupied", 3, ["occupied is no judge adapter"]),
    ("judge score one.jsonl --judge none", 2, ["no judge to ask"]),
    ("judge eval one.jsonl --judge none", 2, ["no judge to ask"]),
]


@pytest.mark.parametrize(("command", "code", "words"), BAD, ids=[row[0] for row in BAD])
def test_bad_input_gives_a_clear_error_and_loses_nothing(command: str, code: int, words: list[str], here: Path, rlaif: Callable):
    lay_out(here)
    done = refuses(command, code, words, here, rlaif)
    lines = done.err.strip().splitlines()
    assert lines[-1].startswith("Try: ") or any(line.startswith("Try: ") for line in lines), "no next step"


def test_there_are_enough_rows():
    assert len(BAD) >= 40


def test_a_message_of_a_judge_server_that_is_not_there(rlaif: Callable):
    done = rlaif("doctor", "--judge", "api", "--base-url", "http://127.0.0.1:9/v1")
    assert done.code == 3 and "no server answers at http://127.0.0.1:9/v1" in done.out


TERMINALS = {
    "no terminal": {},
    "narrow": {"COLUMNS": "20"},
    "no colour": {"NO_COLOR": "1"},
    "dumb": {"TERM": "dumb", "COLUMNS": "20"},
    "nothing set": {"TERM": "", "COLUMNS": "", "LANG": "C"},
}
TYPED = [
    ("train --episods 3", 2, "Unknown flag --episods"),
    ("train --problems missing.jsonl", 2, "missing.jsonl, line 2, field 'tests[0].expected'"),
    ("train --model ./nowhere --dry-run", 3, "No folder at ./nowhere"),
    ("chat --model_path ./nowhere", 3, "No folder at ./nowhere"),
    ("report nowhere", 2, "No run at nowhere"),
]


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize(("command", "code", "words"), TYPED, ids=[row[0] for row in TYPED])
def test_whatever_the_terminal_the_message_is_whole_and_plain(
    command: str, code: int, words: str, terminal: str, here: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch
):
    for name, value in TERMINALS[terminal].items():
        monkeypatch.setenv(name, value)
    lay_out(here)
    done = refuses(command, code, [words], here, rlaif)
    assert "\x1b" not in done.err + done.out


TORN = {
    "state.json": ["cannot be read", "--resume from the one before it"],
    "trainable-000.safetensors": ["cannot be read", "--resume from the one before it"],
    "optimizer-000.safetensors": ["cannot be read", "--resume from the one before it"],
}


@pytest.mark.parametrize("name", TORN)
def test_a_broken_checkpoint_is_named_and_nothing_is_lost(name: str, with_model: Path, here: Path, rlaif: Callable):
    _file(here / "mine.jsonl", *(GOOD_PROBLEM | {"id": f"mine/{split}", "tests": TESTS, "split": split} for split in ("train", "test")))
    sizes = "--episodes 2 --batch_size 1 --group_size 2 --max_new_tokens 8 --eval_samples 1 --feedback execution"
    assert rlaif(*f"train --problems mine.jsonl --output_dir run {sizes}".split()).code == 0
    (torn,) = (here / "run" / "checkpoints").glob(f"episode-*2/{name}")
    torn.write_bytes(torn.read_bytes()[:100])
    kept = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.suffix in (".jsonl", ".safetensors")}
    done = rlaif(*f"train --resume --output_dir run --episodes 3 {sizes.removeprefix('--episodes 2')}".split())
    assert done.code == 2 and torn.parent.name in done.err, done.err
    assert all(words in done.err for words in TORN[name]) and "Traceback" not in done.err
    assert {path: path.read_bytes() for path in kept} == kept
