"""Which of two programs is better, by any judge: preference labels where running them does not tell.

A judge that reads one program at a time (reward model, ensemble) is compared through its two beliefs, and cannot be inconsistent. A language
model is asked in both orders; an answer that turns with the order is marked, and whoever makes labels of it leaves it out (arXiv 2309.00267).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rlaif.config import JudgeConfig
from rlaif.judge.api import ApiJudge, AskFailed
from rlaif.judge.constitution import Constitution, Principle, load_constitution
from rlaif.judge.factory import make_judge
from rlaif.judge.prompts import RUBRIC, code_text, delimiter, problem_text
from rlaif.judge.protocol import Judge, JudgeItem
from rlaif.judge.sanitise import Refusal, sanitise
from rlaif.types import Problem

_HIGHEST = 10
_REASON_TOKENS = 300


class Verdict(NamedTuple):
    """probability: that the first program is the better one, the mean over both orders; None where nobody could say.

    consistent: both orders name the same one. why: for a verdict without a probability, `refused: ...` (no judge is shown such code),
    `alike: ...` (the judge would read the same text twice) or the judge's failure.
    """

    probability: float | None
    consistent: bool = True
    why: str = ""


class PairJudge(Protocol):
    """Anything that compares two programs for one problem by one principle."""

    name: str
    constitution: Constitution

    def compare(self, problem: Problem, first: str, second: str, principle: Principle) -> Verdict: ...


def make_pair_judge(config: JudgeConfig, *, cache_dir: Path | None = None) -> PairJudge | None:
    """The judge of `config` as one that compares; None for kind `none`. Raises what `make_judge` raises."""
    judge = make_judge(config, cache_dir=cache_dir)
    constitution = load_constitution(config.constitution)
    if judge is None:
        return None
    if isinstance(judge, ApiJudge):
        return ApiPairs(judge)
    if hasattr(judge, "model") and hasattr(judge, "context"):
        return LocalPairs(judge, constitution)
    return PointwisePairs(judge, constitution)


def unlike(problem: Problem, first: str, second: str) -> Verdict | tuple[str, str]:
    """Both programs as a judge may see them, or the verdict that needs no judge."""
    shown = [sanitise(problem, code) for code in (first, second)]
    texts: list[str] = []
    for code in shown:
        if isinstance(code, Refusal):
            return Verdict(None, why=f"refused: {code.kind}")
        texts.append(code.code)
    return Verdict(None, why="alike: they differ in decoration only") if texts[0] == texts[1] else (texts[0], texts[1])


def both_orders(forwards: float, backwards: float) -> Verdict:
    """forwards: P(first is better) when it came first; backwards: the same when it came second."""
    return Verdict((forwards + backwards) / 2, consistent=(forwards > 0.5) == (backwards > 0.5))


class LocalPairs:
    """A causal LM on this machine: the odds of its next token being A or B."""

    def __init__(self, judge: Any, constitution: Constitution) -> None:
        self.judge, self.constitution, self.name = judge, constitution, judge.name

    def compare(self, problem: Problem, first: str, second: str, principle: Principle) -> Verdict:
        from rlaif.judge.pairwise import PairwiseLabeller

        shown = unlike(problem, first, second)
        if isinstance(shown, Verdict):
            return shown
        labeller = PairwiseLabeller(self.judge.model, self.judge.tokenizer, principle)
        prompts = labeller.prompt(problem, *shown), labeller.prompt(problem, *reversed(shown))
        try:
            with self.judge.context():
                forwards, backwards = (labeller.probability_of_first(prompt) for prompt in prompts)
        except (RuntimeError, MemoryError) as error:
            return Verdict(None, why=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
        return both_orders(forwards, 1 - backwards)


class PointwisePairs:
    """Two beliefs make a comparison: P(first is better) = sigmoid(logit(belief 1) - logit(belief 2)), Bradley-Terry on the odds."""

    def __init__(self, judge: Judge, constitution: Constitution) -> None:
        self.judge, self.constitution, self.name = judge, constitution, judge.name

    def compare(self, problem: Problem, first: str, second: str, principle: Principle) -> Verdict:
        shown = unlike(problem, first, second)
        if isinstance(shown, Verdict):
            return shown
        reports = self.judge.score([JudgeItem(problem, first), JudgeItem(problem, second)])
        scores = [report.principles.get(principle.id, report.score) for report in reports]
        if any(score is None for score in scores):
            return Verdict(None, why=next(report.error or "no score" for report, score in zip(reports, scores, strict=True) if score is None))
        one, two = (min(max(score, 1e-6), 1 - 1e-6) for score in scores if score is not None)
        return Verdict(1 / (1 + math.exp(math.log(two / (1 - two)) - math.log(one / (1 - one)))))


class ApiPairs:
    """A model behind an OpenAI-compatible server, asked in both orders for a reason and then for a number."""

    def __init__(self, judge: ApiJudge) -> None:
        self.judge, self.constitution, self.name = judge, judge.constitution, judge.name

    def compare(self, problem: Problem, first: str, second: str, principle: Principle) -> Verdict:
        shown = unlike(problem, first, second)
        if isinstance(shown, Verdict):
            return shown
        questions = [self._messages(problem, *shown, principle), self._messages(problem, *reversed(shown), principle)]
        found = [read_preference(answer) for answer in self.judge.ask(questions, max_tokens=_REASON_TOKENS)]
        wrong = next((answer for answer in found if isinstance(answer, str)), None)
        if wrong is not None:
            return Verdict(None, why=wrong)
        forwards, backwards = (answer for answer in found if not isinstance(answer, str))
        return both_orders(forwards, 1 - backwards)

    def _messages(self, problem: Problem, first: str, second: str, principle: Principle) -> list[dict[str, str]]:
        # no secret in the fence: a cached answer must be found again, and sanitised code cannot hold a fence of ours
        one, two = (code_text(code, delimiter(b"compare", problem, code)) for code in (first, second))
        system = (
            f"{RUBRIC}\n\nCompare two programs for one task by this principle alone: {principle.principle}\n"
            f'Answer with one JSON object and nothing else: {{"reason": "what makes the difference", "preference": integer}}, where '
            f"{_HIGHEST} means that program A is clearly better, 0 that program B is clearly better, and 5 that there is no difference."
        )
        user = f"Task:\n{problem_text(problem)}\n\nProgram A:\n{one}\nProgram B:\n{two}"
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def read_preference(answer: str | AskFailed) -> float | str:
    """P(A) from the answer's number, or why there is none. Strict: nothing is guessed from a malformed answer."""
    if isinstance(answer, AskFailed):
        return answer.why
    text = re.sub(r"\A```(?:json)?\s*\n(.*)\n```\Z", r"\1", answer.strip(), flags=re.DOTALL)
    try:
        value = json.loads(text)["preference"]
    except (ValueError, TypeError, KeyError):
        return "malformed answer: no JSON object with a preference"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HIGHEST:
        return f"malformed answer: the preference is {value!r}"
    return value / _HIGHEST
