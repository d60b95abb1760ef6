"""From the answers to one problem to labelled pairs: tests decide where they can, a judge where they tie. No model is loaded here.

Held-out tests are carried along to measure the labels; nothing here lets them choose one.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.evals import wilson
from rlaif.judge.compare import PairJudge
from rlaif.judge.constitution import BELIEF, Constitution, Principle
from rlaif.train.preference_data import Pair, answer_side, prompt_side
from rlaif.types import Completion, Feedback, Problem

TIE = 0.01
"""Two programs whose rewards by tests alone are nearer than this tie."""
_POOR_BAND = 0.3
"""Rewards of programs that do not pass lie below this (rewards/combine.py)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer with what running it said. `feedback` is of mode `execution`: graded tests alone."""

    completion: Completion
    feedback: Feedback
    held_out_passed: bool | None = None

    @property
    def graded(self) -> bool | None:
        tests = self.feedback.tests
        return None if tests is None or self.feedback.reward is None else tests.all_passed


@dataclass(slots=True)
class Paired:
    """Pairs of one problem, and what became of the pairs that are none."""

    pairs: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def label_by_execution(first: Answer, second: Answer) -> float | None:
    """P(first is better) by graded tests: 1 or 0 where one passes them all and the other does not; None for a tie or no tests.

    Where both fail, by how far apart they are in the band of failing programs, between 0.5 and 1: partial credit is weak evidence.
    """
    one, two = first.graded, second.graded
    if one is None or two is None:
        return None
    if one != two:
        return 1.0 if one else 0.0
    if one and two:
        return None  # both pass: what tells them apart is no test
    gap = (first.feedback.reward or 0.0) - (second.feedback.reward or 0.0)
    return None if abs(gap) < TIE else 0.5 + 0.5 * max(-1.0, min(1.0, gap / _POOR_BAND))


def principle_for(first: Answer, second: Answer, constitution: Constitution, rng: random.Random) -> Principle:
    """What a judge is asked about a tie: correctness, or, where tests say that both are correct, another principle, drawn by its weight."""
    others = [principle for principle in constitution.principles if principle.id != BELIEF and principle.weight > 0]
    if not others or not (first.graded and second.graded):
        return constitution.belief
    return rng.choices(others, [principle.weight for principle in others])[0]


def make_pairs(
    problem: Problem,
    answers: Sequence[Answer],
    judge: PairJudge | None,
    tokenizer: Any,
    *,
    most: int,
    most_judged: int,
    number: int,
    rng: random.Random,
) -> Paired:
    """Pairs of distinct programs: at most `most` that tests decide (the surest first), and at most `most_judged` ties by the judge.

    number: the round, for the record. An answer nobody could run makes no pair.
    """
    result = Paired()
    usable = list({answer.completion.code: answer for answer in answers if not _unscored(answer)}.values())
    result.dropped["unscored"] = sum(map(_unscored, answers))
    candidates = [(first, second, label_by_execution(first, second)) for first, second in itertools.combinations(usable, 2)]
    rng.shuffle(candidates)
    decided = sorted(((first, second, label) for first, second, label in candidates if label is not None), key=lambda item: -abs(item[2] - 0.5))
    result.pairs = [_pair(problem, first, second, label, None, tokenizer, number) for first, second, label in decided[:most]]
    ties = [(first, second) for first, second, label in candidates if label is None]
    if judge is None:
        result.dropped["tie_without_judge"] = len(ties)
    else:
        _judge_ties(problem, ties, judge, result, tokenizer, most_judged, number, rng)
    result.dropped = Counter({kind: count for kind, count in result.dropped.items() if count})
    return result


def _judge_ties(
    problem: Problem,
    ties: Sequence[tuple[Answer, Answer]],
    judge: PairJudge,
    result: Paired,
    tokenizer: Any,
    most: int,
    number: int,
    rng: random.Random,
) -> None:
    labelled = 0
    for first, second in ties[: 2 * most]:  # a judge that keeps contradicting itself must not be asked about every pair
        if labelled == most:
            return
        principle = principle_for(first, second, judge.constitution, rng)
        verdict = judge.compare(problem, first.completion.code, second.completion.code, principle)
        if verdict.probability is None:
            kind = verdict.why.split(":")[0]
            result.dropped[kind if kind in ("refused", "alike") else "judge_failed"] += 1
        elif not verdict.consistent:
            result.dropped["order_inconsistent"] += 1
        elif verdict.probability == 0.5:
            result.dropped["judge_undecided"] += 1
        else:
            result.pairs.append(_pair(problem, first, second, verdict.probability, principle, tokenizer, number))
            labelled += 1


def _unscored(answer: Answer) -> bool:
    return answer.feedback.outcome == "infra_failure"


def _pair(problem: Problem, first: Answer, second: Answer, probability: float, principle: Principle | None, tokenizer: Any, number: int) -> Pair:
    chosen, rejected = (first, second) if probability > 0.5 else (second, first)
    return Pair(
        prompt=prompt_side(problem, tokenizer),
        chosen=answer_side(problem, chosen.completion, tokenizer),
        rejected=answer_side(problem, rejected.completion, tokenizer),
        label_probability=round(max(probability, 1 - probability), 6),
        source="execution" if principle is None else "judge",
        principle=principle.id if principle else None,
        problem_id=problem.id,
        round=number,
        chosen_code=chosen.completion.code,
        rejected_code=rejected.completion.code,
        chosen_graded=chosen.graded,
        rejected_graded=rejected.graded,
        chosen_held_out=chosen.held_out_passed,
        rejected_held_out=rejected.held_out_passed,
    )


def agreement(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How often labels name the program that passes the held-out tests, among pairs of which exactly one does. By source, with intervals."""

    def part(some: list[Pair]) -> dict[str, Any]:
        told = [
            pair for pair in some if None not in (pair.chosen_held_out, pair.rejected_held_out) and pair.chosen_held_out != pair.rejected_held_out
        ]
        agreed = sum(bool(pair.chosen_held_out) for pair in told)
        row: dict[str, Any] = {"pairs": len(some), "told_apart_by_held_out_tests": len(told), "agreed": agreed}
        if told:
            interval = wilson(agreed, len(told))
            row |= {"agreement": interval.value, "low": interval.low, "high": interval.high}
        return row

    return {
        "all": part(list(pairs)),
        "execution": part([pair for pair in pairs if pair.source == "execution"]),
        "judge": part([pair for pair in pairs if pair.source == "judge"]),
    }
