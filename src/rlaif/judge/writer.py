"""Judges that write: a critique of a program, and a better program after it (Constitutional AI, arXiv 2212.08073, stage 1).

The words of both requests are here, so that one file shows what a writer is told: the task with its *shown* tests, the program, and a
principle. No graded or held-out test, no outcome of one, and no reference solution enters them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rlaif.config import JudgeConfig
from rlaif.errors import JudgeUnavailable, ModelNotFound, UsageError
from rlaif.judge.constitution import Principle, load_constitution
from rlaif.judge.prompts import problem_text
from rlaif.judge.sanitise import escape_special, precheck
from rlaif.types import Problem

Messages = list[dict[str, str]]
OWN_WORDS = 5
"""A critique must hold this many different words that neither the task nor the program has."""


class Written(NamedTuple):
    """What a writer wrote. finished: it ended by itself, within its limit. error: why there is no text at all."""

    text: str
    finished: bool = True
    error: str | None = None


class Writer(Protocol):
    """Anything that answers chat messages. `openings[i]`, where a writer can continue one, is how its answer starts (and part of the text)."""

    name: str

    def write(self, questions: Sequence[Messages], *, max_tokens: int, seed: int, openings: Sequence[str] | None = None) -> list[Written]: ...


class LocalWriter:
    """A causal (or encoder-decoder) language model on this machine, sampled like the policy."""

    def __init__(self, policy: Any, name: str, temperature: float = 0.7) -> None:
        self.policy, self.name, self.temperature = policy, name, temperature

    def write(self, questions: Sequence[Messages], *, max_tokens: int, seed: int, openings: Sequence[str] | None = None) -> list[Written]:
        import torch

        from rlaif.policy.sampler import SamplingParams, context_length, sample

        starts = list(openings or [""] * len(questions))
        tokenizer = self.policy.tokenizer
        rows = [
            tokenizer(_as_text(messages, tokenizer) + start, add_special_tokens=False).input_ids
            for messages, start in zip(questions, starts, strict=True)
        ]
        room = (context_length(self.policy) or 1 << 30) - max_tokens
        places = [place for place, row in enumerate(rows) if 0 < len(row) <= room]
        params = SamplingParams(max_tokens, self.temperature, stop_texts=("\n```",) if openings else ())
        found = sample(self.policy, [rows[place] for place in places], 1, params, torch.Generator().manual_seed(seed))
        result = [Written("", error="the request is longer than the writer's context")] * len(rows)
        for place, (one,) in zip(places, found, strict=True):
            text = starts[place] + tokenizer.decode(one.token_ids, skip_special_tokens=True)
            result[place] = Written(text, one.finish_reason != "length")
        return result


class ApiWriter:
    """A model behind an OpenAI-compatible server."""

    def __init__(self, judge: Any) -> None:
        self.judge, self.name = judge, judge.name

    def write(self, questions: Sequence[Messages], *, max_tokens: int, seed: int, openings: Sequence[str] | None = None) -> list[Written]:
        answers = self.judge.ask(questions, max_tokens=max_tokens)
        return [Written(answer) if isinstance(answer, str) else Written("", error=answer.why) for answer in answers]


def make_writer(config: JudgeConfig, *, policy: Any = None, cache_dir: Path | None = None) -> Writer:
    """The writer that `config` names. policy: reused where it is that very model. Raises UsageError for a judge that cannot write."""
    from rlaif.judge.embedded import BASE_MODEL, base_of

    match config.kind:
        case "api":
            from rlaif.judge.factory import make_judge

            judge = make_judge(config.model_copy(update={"ensemble": ()}), cache_dir=cache_dir)
            return ApiWriter(judge)
        case "embedded":
            name = BASE_MODEL  # the shipped adapter has learnt to say Yes or No, and nothing else
        case "local":
            if config.model is None and config.adapter is None:
                raise UsageError("The local judge needs a model", "", "--judge.model NAME (a folder or a Hub name)")
            name = config.model or base_of(config.adapter)  # type: ignore[arg-type]
        case _:
            raise UsageError(
                f"The judge '{config.kind}' cannot write", "critiques and revisions are text", "--judge api, or --judge local --judge.model NAME"
            )
    from rlaif.policy.model import load_policy
    from rlaif.policy.weights import resolve_weights

    try:
        if policy is not None and Path(policy.source).resolve() == resolve_weights(name).resolve():
            return LocalWriter(policy, name)
        return LocalWriter(load_policy(name, trainable=False), name)
    except ModelNotFound as error:
        raise JudgeUnavailable(f"No model to write with: {error.what}", error.why, error.try_next) from error


def principles_of(config: JudgeConfig) -> tuple[Principle, ...]:
    """The constitution's principles with a weight: what critiques are sampled from."""
    return tuple(principle for principle in load_constitution(config.constitution).principles if principle.weight > 0)


# -- the words -----------------------------------------------------------------------------------------------------------------------


def critique_messages(problem: Problem, code: str, principle: Principle) -> Messages:
    """Ask what is wrong with a program by one principle."""
    text = (
        f"Task:\n{problem_text(problem)}\n\nProgram:\n{_fenced(code)}\n\n"
        f"Principle: {principle.principle}\n"
        "Criticise the program by this principle. Name each mistake and what must change, in at most three sentences and without code."
    )
    return [{"role": "user", "content": text}]


def revision_messages(problem: Problem, code: str, principle: Principle, critique: str) -> Messages:
    """Ask for a better program, given the critique."""
    text = (
        f"Task:\n{problem_text(problem)}\n\nProgram:\n{_fenced(code)}\n\n"
        f"Principle: {principle.principle}\nCriticism:\n{escape_special(critique.strip())}\n\n"
        "Write the whole program again so that it answers the task and this criticism no longer applies. Give one Python code block and nothing else."
    )
    return [{"role": "user", "content": text}]


def usable_critique(written: Written, problem: Problem, code: str) -> bool:
    """It ended by itself and says something of its own: not the task, not the program, not nothing."""
    if written.error or not written.finished:
        return False
    prose = re.sub(r"(?s)```.*?(?:```|\Z)", " ", written.text)
    return len(_words(prose) - _words(problem_text(problem)) - _words(code)) >= OWN_WORDS


def usable_revision(problem: Problem, original: str, revised: str | None) -> bool:
    """It is a program for the task (parses, defines what was asked for, does something) and not the same one again."""
    if revised is None or precheck(problem, revised) is not None:
        return False
    try:
        return ast.dump(ast.parse(original)) != ast.dump(ast.parse(revised))
    except (SyntaxError, ValueError, RecursionError):
        return True  # the original did not parse, the revision does


def _fenced(code: str) -> str:
    return f"```python\n{escape_special(code.rstrip())}\n```"


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{2,}", text.lower()))


def _as_text(messages: Messages, tokenizer: Any) -> str:
    if getattr(tokenizer, "chat_template", None):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return "\n\n".join(message["content"] for message in messages) + "\n\nAnswer:\n"
