"""What a dry run shows of the run to come: one prompt as the policy would read it, one question to the judge, and what asking costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.config import JudgeConfig, TrainConfig
from rlaif.judge import Refusal, load_constitution, sanitise
from rlaif.judge.api import MAX_COMPLETION_TOKENS
from rlaif.judge.prompts import api_messages, code_text, problem_text, question_text, rubric_text
from rlaif.policy.model import load_tokenizer
from rlaif.problems.prompting import build_prompt, encode_prompt
from rlaif.types import Problem

_MARK = "0000"
"""In place of the four digits that a run's secret gives."""


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """One question to the judge. `usd_at_most` is None where no price is known or none is paid."""

    text: str
    prompt_tokens: int
    usd_at_most: float | None


def policy_prompt(problem: Problem, folder: Path) -> tuple[str, int]:
    """The prompt that the policy gets for a problem, and its length in tokens. Raises ModelNotFound if the folder has no tokenizer."""
    tokenizer = load_tokenizer(folder)
    prompt = build_prompt(problem, tokenizer)
    return prompt.text, len(encode_prompt(prompt, tokenizer))


def judge_call(problem: Problem, config: TrainConfig, folder: Path) -> JudgeCall | None:
    """The question about the problem's own reference, or a stub where it has none; None where no judge is asked.

    Tokens are counted with the policy's tokenizer: exact for the embedded judge on the default model, near enough for another.
    """
    judge = config.judge
    if config.feedback == "execution" or judge.kind == "none":
        return None
    stub = f"def {problem.entry_point or 'main'}(*arguments):\n    return arguments\n"
    shown = sanitise(problem, problem.reference or stub)
    text = _question(judge, problem, "" if isinstance(shown, Refusal) else shown.code)
    tokens = len(load_tokenizer(folder)(text, add_special_tokens=False).input_ids)
    return JudgeCall(text, tokens, _usd(judge, tokens))


def _question(judge: JudgeConfig, problem: Problem, code: str) -> str:
    constitution = load_constitution(judge.constitution)
    if judge.kind == "api":
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in api_messages(constitution, problem, code, _MARK))
    # A local judge reads this inside its own chat template; the embedded one was taught the one question that carries the score.
    principles = (constitution.belief,) if judge.kind == "embedded" else constitution.principles
    return f"{rubric_text(principles)}\n\nTask:\n{problem_text(problem)}\n{code_text(code, _MARK)}{question_text(principles[0])}"


def _usd(judge: JudgeConfig, prompt_tokens: int) -> float | None:
    prices = (judge.usd_per_million_prompt_tokens, judge.usd_per_million_completion_tokens)
    if judge.kind != "api" or None in prices:
        return None
    return (prompt_tokens * (prices[0] or 0.0) + MAX_COMPLETION_TOKENS * (prices[1] or 0.0)) / 1e6


def cost_in_words(call: JudgeCall, calls: int, judge: JudgeConfig) -> str:
    """ "at most 120 calls of about 310 tokens, at most $0.05 in all"."""
    each = f"at most {calls:,} calls of about {call.prompt_tokens:,} prompt tokens"
    if call.usd_at_most is not None:
        return f"{each}, at most ${call.usd_at_most * calls:.2f} in all"
    if judge.kind == "api":
        return f"{each}; give both prices (--judge.usd_per_million_...) to see them in money"
    return f"{each}, on this machine, no money"


def as_facts(prompt: tuple[str, int], call: JudgeCall | None, calls: int) -> dict[str, Any]:
    """The same for programs."""
    facts: dict[str, Any] = {"sample_prompt": prompt[0], "sample_prompt_tokens": prompt[1]}
    if call is not None:
        total = None if call.usd_at_most is None else call.usd_at_most * calls
        facts |= {"sample_judge_prompt": call.text, "judge_prompt_tokens": call.prompt_tokens, "judge_usd_at_most": total}
    return facts
