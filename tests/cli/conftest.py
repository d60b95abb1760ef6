"""Commands run in this process, in an empty folder, with a tiny model where the default one would be."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from rlaif.cli.main import main

# the helpers that tests share are `tests.synthetic_run` and so on, whatever pytest made the root of imports
sys.path.insert(0, str(Path(__file__).parent.parent.parent))


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


TASK = "Write a function add(a, b) that adds two numbers"
LEARNT = "\n    return a + b\n```"


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache in which `smollm2-135m` is a tiny model that answers TASK (and little else) right."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging as hf_logging

    from rlaif.cli.chat_model import problem_of
    from rlaif.problems.prompting import build_prompt

    hf_logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("cache") / "models" / "smollm2-135m"
    bytes_to_ids = {text: number for number, text in enumerate(["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(bytes_to_ids, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    tokenizer.add_tokens(["Yes", "No"])  # a judge reads its belief from these two
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 4096}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0, pad_token_id=0, **sizes))
        ids = torch.tensor([tokenizer(build_prompt(problem_of(TASK, 1), tokenizer).text + LEARNT).input_ids])
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(60):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder.parent.parent


@pytest.fixture
def with_model(here: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`here`, on a machine that has the default model."""
    monkeypatch.setenv("RLAIF_CACHE", str(model_cache))
    return model_cache


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
        (here.parent / "stdin").write_text(stdin)
        capfd.readouterr()
        with monkeypatch.context() as patch, (here.parent / "stdin").open(encoding="utf-8") as stream:
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
