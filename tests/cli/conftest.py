"""Commands run in this process, in an empty folder, with a tiny model where the default one would be."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from rlaif.cli.main import main


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache in which `smollm2-135m` is a tiny random model."""
    from tiny_models import make_tiny

    root = tmp_path_factory.mktemp("cache")
    make_tiny("llama", root / "models" / "smollm2-135m")
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no model anywhere."""
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "no_cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no_hub"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    # transformers keeps the stderr of the test that imported it
    monkeypatch.setattr(logging, "raiseExceptions", False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


Rlaif = Callable[..., Done]


@pytest.fixture
def rlaif(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Rlaif:
    """`rlaif("train", "--episodes", "0")` → exit code, stdout, stderr. `stdin` is what it can read."""

    def run(*words: str, stdin: str = "") -> Done:
        stream = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        capfd.readouterr()
        with monkeypatch.context() as patch, contextlib.ExitStack():
            patch.setattr(sys, "stdin", stream)
            code = main(list(words))
        return Done(code, *capfd.readouterr())

    return run


ADD = {"prompt": "Add two numbers", "solution": "def add(a, b):\n    return a + b\n", "test_input": "add(2, 3)", "expected_output": "5"}


@pytest.fixture
def solutions(here: Path) -> Path:
    """`solutions.jsonl`, as the examples in the help name it: one right, one wrong, one without tests."""
    wrong = ADD | {"id": "wrong", "solution": "def add(a, b):\n    return a * b\n"}
    untested = {"id": "untested", "prompt": "Add two numbers", "solution": ADD["solution"]}
    path = here / "solutions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ADD | {"id": 1}, wrong, untested)))
    return path
