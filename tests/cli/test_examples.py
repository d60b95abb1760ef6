"""The help of every command shows an example, and the example runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.cli.main import available
from tests.synthetic_run import make_run

LEAVES = ["", "train", "evaluate", "chat", "judge", "judge score", "judge eval", "judge train", "reward"]
LEAVES += ["problems", "problems list", "problems check", "problems export", "problems generate", "problems more-tests", "report", "doctor"]


def test_every_command_that_exists_is_looked_at():
    others = {"serve", "prefer"}  # their own tests run their examples
    assert set(available()) - others == {words.split()[0] for words in LEAVES if words}


@pytest.mark.parametrize("group", ["judge", "problems"])
def test_every_command_of_a_group_is_looked_at(group: str, rlaif: Callable):
    listed = re.search(r"Commands:\n((?:  .+\n)+)", rlaif(group, "--help").out)
    assert listed and {line.split()[0] for line in listed[1].splitlines()} == {words.split()[1] for words in LEAVES if words.startswith(f"{group} ")}


@pytest.mark.parametrize("command", LEAVES, ids=[words or "rlaif" for words in LEAVES])
def test_the_example_of_the_help_runs(command: str, solutions: Path, with_model: Path, rlaif: Callable, monkeypatch: pytest.MonkeyPatch):
    # a shipped judge belongs to the real model; here the judge is the tiny one as it is
    monkeypatch.setattr("rlaif.judge.embedded.SHIPPED", solutions.parent / "no_adapter")
    make_run(Path("runs") / "one")
    shown = rlaif(*command.split(), "--help")
    assert shown.code == 0 and shown.err == ""
    found = re.search(r"Example:\n +(rlaif .*)", shown.out)
    assert found, "the help shows no example"
    words = shlex.split(found[1])[1:]
    assert " ".join(words).startswith(command)
    done = rlaif(*words, stdin="Write a function add(a, b) that adds two numbers\nadd(2, 3) == 5\n")
    assert done.code == 0, done.err
    assert done.out
    if "--json" in words:
        assert [json.loads(line) for line in done.out.splitlines()]
