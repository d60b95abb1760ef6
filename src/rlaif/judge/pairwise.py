"""Offline quality labels from a stronger local model: pairs of programs in both orders, soft labels, and no trust in a verdict that turns with
the order (arXiv 2309.00267: the smallest labeler there kept its position 56% of the time after a swap).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from rlaif.judge.constitution import Principle
from rlaif.judge.labelled import Labelled
from rlaif.judge.prompts import RUBRIC, problem_text
from rlaif.judge.sanitise import Sanitised, escape_special, sanitise
from rlaif.types import Problem


class Preference(NamedTuple):
    """probability: that `first` keeps the principle better than `second`, mean over both orders. consistent: both orders name the same one."""

    first: str
    second: str
    probability: float
    consistent: bool


class PairwiseLabeller:
    """Asks a causal LM which of two programs keeps a principle better, reading the odds of its next token being A or B."""

    def __init__(self, model: Any, tokenizer: Any, principle: Principle) -> None:
        self.model, self.tokenizer, self.principle = model, tokenizer, principle
        ids = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]
        self._letters = (ids[0], ids[1])

    def prompt(self, problem: Problem, first: str, second: str) -> str:
        """The question for sanitised code, in the chat template if there is one."""
        task, one, two = problem_text(problem), escape_special(first), escape_special(second)
        text = (
            f"{RUBRIC}\n\nTask:\n{task}\n\nProgram A:\n{one}\nProgram B:\n{two}\n"
            f"{self.principle.principle} Which program keeps this better? Answer A or B."
        )
        if not getattr(self.tokenizer, "chat_template", None):
            return f"{text}\nAnswer:"
        return self.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)

    @torch.inference_mode()
    def probability_of_first(self, prompt: str) -> float:
        """P(A) against B at the next token, in float32."""
        ids = torch.tensor([self.tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=self.model.device)
        logits = self.model(input_ids=ids, logits_to_keep=1).logits[0, -1].float()
        return float(torch.softmax(logits[list(self._letters)], 0)[0])

    def compare(self, problem: Problem, first: str, second: str) -> Preference | None:
        """Both orders; None for code that no judge is asked about."""
        shown = [sanitise(problem, code) for code in (first, second)]
        if not all(isinstance(code, Sanitised) for code in shown):
            return None
        one, two = (code.code for code in shown if isinstance(code, Sanitised))
        forwards = self.probability_of_first(self.prompt(problem, one, two))
        backwards = 1 - self.probability_of_first(self.prompt(problem, two, one))
        return Preference(first, second, (forwards + backwards) / 2, (forwards > 0.5) == (backwards > 0.5))


def soft_labels(problem: Problem, preferences: Sequence[Preference], principle: str) -> Iterator[Labelled]:
    """A label in (0, 1) per program: its Bradley-Terry strength among its problem's programs, inconsistent pairs left out.

    strength: gradient ascent on sum of p log s(i-j) + (1-p) log s(j-i) with a weak pull to 0, so that it exists for any set of pairs.
    """
    kept = [preference for preference in preferences if preference.consistent]
    codes = list(dict.fromkeys(code for preference in kept for code in (preference.first, preference.second)))
    strength = dict.fromkeys(codes, 0.0)
    for _ in range(500):
        gradient = {code: -0.1 * strength[code] for code in codes}
        for first, second, probability, _ in kept:
            slope = probability - 1 / (1 + math.exp(strength[second] - strength[first]))
            gradient[first] += slope
            gradient[second] -= slope
        strength = {code: strength[code] + 0.3 * gradient[code] / max(1, len(codes) - 1) for code in codes}
    for code in codes:
        yield Labelled(problem, code, 1 / (1 + math.exp(-strength[code])), principle, "pairwise")
