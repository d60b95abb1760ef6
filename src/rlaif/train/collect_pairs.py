"""`rlaif prefer collect`: sample → run → pair → label (tests first, the judge where they tie) → write. Nothing is trained.

A round is journaled in one synced line before anything else is written of it, and its random numbers come from (seed, round) alone, so a run
killed anywhere goes on from its last whole round and ends with the pairs of an uninterrupted one.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlaif.errors import RunFailed, UsageError
from rlaif.judge.compare import PairJudge, make_pair_judge
from rlaif.policy.model import Policy, load_policy
from rlaif.policy.sampler import SamplingParams
from rlaif.problems import load_problems, measured_pass_rates
from rlaif.problems.curriculum import Curriculum
from rlaif.problems.split import stable_hash
from rlaif.rewards.engine import RewardEngine
from rlaif.runs import Console
from rlaif.runs.files import append_lines, read_lines
from rlaif.sandbox import Sandbox
from rlaif.train.pairing import Answer, agreement, make_pairs
from rlaif.train.prefer_config import CollectConfig, SamplingConfig
from rlaif.train.prefer_run import Open, open_run
from rlaif.train.preference_data import FILE, Pair, to_row, write_pairs
from rlaif.train.rollout import generate, held_out_passed
from rlaif.types import Problem, Rollout

JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Collected:
    """Where the pairs are, and `summary.json`."""

    path: Path
    file: Path
    summary: dict[str, Any]


class Sampler:
    """Draws problems, samples answers and runs them: what collecting and revising have in common."""

    def __init__(self, config: SamplingConfig, problems: list[Problem], policy: Policy, sandbox: Sandbox) -> None:
        self.config, self.policy, self.sandbox = config, policy, sandbox
        self.engine = RewardEngine(sandbox, None, "execution", efficiency=False)
        self.curriculum = Curriculum(problems, seed=config.seed, uniform=not config.curriculum, measured=measured_pass_rates())

    def replay(self, outcomes: Sequence[tuple[str, int, int]]) -> None:
        """A round that was done before: the same draw, and what came of it."""
        self.curriculum.draw(self.config.batch_size)
        for identifier, passed, total in outcomes:
            self.curriculum.update(identifier, passed, total)

    def round(self, number: int) -> tuple[list[Problem], list[list[Answer]], list[tuple[str, int, int]]]:
        """Problems [P], their answers [P][G], and (id, passed, scored) for the journal."""
        config = self.config
        problems = self.curriculum.draw(config.batch_size)
        generator = torch.Generator().manual_seed(seed_of(config.seed, number))
        params = SamplingParams(config.max_new_tokens, config.temperature, stop_token_ids=self.policy.stop_token_ids)
        completions_PG = generate(self.policy, problems, config.group_size, params, generator)[2]
        rows = [(problem, one) for problem, group in zip(problems, completions_PG, strict=True) for one in group]
        feedbacks = self.engine.score([problem for problem, _ in rows], [one.code for _, one in rows])
        held_out = held_out_passed(self.sandbox, [problem for problem, _ in rows], [one for _, one in rows])
        answers = [Answer(one, feedback, passed) for (_, one), feedback, passed in zip(rows, feedbacks, held_out, strict=True)]
        size = config.group_size
        groups = [answers[start : start + size] for start in range(0, len(answers), size)]
        outcomes = []
        for problem, group in zip(problems, groups, strict=True):
            scored = [answer.graded for answer in group if answer.graded is not None]
            outcomes.append((problem.id, sum(scored), len(scored)))
            self.curriculum.update(problem.id, sum(scored), len(scored))
        if answers and all(answer.feedback.outcome == "infra_failure" for answer in answers):
            raise RunFailed("Nothing could be run", answers[0].feedback.reasons[0], "`rlaif doctor`, then the same command with --resume")
        return problems, groups, outcomes


def seed_of(seed: int, number: int) -> int:
    """A seed of a round's own."""
    return stable_hash(f"{seed}/{number}") % 2**63


def training_problems(config: SamplingConfig) -> list[Problem]:
    """The problems to sample from. Raises UsageError where there are fewer than a round takes."""
    problems = load_problems(config.problems, split="train")
    if len(problems) < config.batch_size:
        raise UsageError(
            f"--batch-size {config.batch_size} is more than the {len(problems)} training problems of {config.problems}",
            "a round takes each problem at most once",
            f"--batch-size {len(problems)}",
        )
    return problems


def collect_pairs(config: CollectConfig, *, console: Console | None = None, judge: PairJudge | None = None) -> Collected:
    """Collect, or go on collecting, until `config.rounds` rounds are done; returns where the pairs are and what is known of them.

    judge: in place of the one that the settings name. Raises UsageError, EnvironmentFailure, RunFailed, or Interrupted with all whole rounds kept.
    """
    problems = training_problems(config)
    with ExitStack() as stack:
        opened = stack.enter_context(open_run(config, console, "round"))
        config = opened.config
        sandbox = stack.enter_context(Sandbox(config.sandbox))
        torch.manual_seed(config.seed)
        policy = load_policy(config.model, dtype=config.dtype, device=config.device, trainable=False)
        judge = judge or make_pair_judge(config.judge, cache_dir=opened.run.path)
        opened.run.write_env(sandbox=sandbox.describe(), device=str(policy.device), seed=config.seed, judge=judge.name if judge else "none")
        sampler = Sampler(config, problems, policy, sandbox)
        rows = journaled(opened, sampler)
        say = opened.console.message
        answers = config.batch_size * config.group_size
        say(f"Collecting pairs from {config.model}: {config.rounds} rounds of {answers} answers; ties go to {judge.name if judge else 'nobody'}.")
        if rows:
            say(f"Going on after round {len(rows)}.")
        for number in range(len(rows) + 1, config.rounds + 1):
            rows.append(_round(opened, sampler, judge, number))
            opened.finished(number)
        pairs = [Pair(**row) for line in rows for row in line["pairs"]]
        write_pairs(opened.run.path / FILE, pairs)
        summary = summarise(rows, pairs, judge)
        opened.run.write_json("summary.json", summary)
        for line in lines_of(summary):
            say(line)
        return Collected(opened.run.path, opened.run.path / FILE, summary)


def journaled(opened: Open[Any], sampler: Sampler) -> list[dict[str, Any]]:
    """The whole rounds that are there, replayed; what was logged of a torn one is dropped."""
    opened.total = sampler.config.rounds
    rows = [row for _, row in read_lines(opened.run.path / JOURNAL)]
    for row in rows:
        sampler.replay(row["outcomes"])
    opened.run.truncate_to(len(rows))
    opened.finished(len(rows))
    return rows


def _round(opened: Open[CollectConfig], sampler: Sampler, judge: PairJudge | None, number: int) -> dict[str, Any]:
    start = time.perf_counter()
    config = opened.config
    problems, groups, outcomes = sampler.round(number)
    rng = random.Random(seed_of(config.seed, -number))
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for problem, answers in zip(problems, groups, strict=True):
        limits = {"most": config.pairs_per_problem, "most_judged": config.judged_per_problem}
        made = make_pairs(problem, answers, judge, sampler.policy.tokenizer, **limits, number=number, rng=rng)
        pairs += made.pairs
        dropped += made.dropped
    samples = sum(map(len, groups))
    line = {"round": number, "outcomes": outcomes, "samples": samples, "dropped": dict(dropped), "pairs": [to_row(pair) for pair in pairs]}
    solved, scored = sum(passed for _, passed, _ in outcomes), sum(total for _, _, total in outcomes)
    judged = sum(pair.source == "judge" for pair in pairs)
    with opened.guard.protected():
        log_answers(opened, problems, groups, number)
        opened.run.log_metrics(
            {
                "episode": number,
                "samples": samples,
                "pass_rate": solved / scored if scored else None,
                "pairs": len(pairs),
                "pairs_by_execution": len(pairs) - judged,
                "pairs_by_judge": judged,
                "order_inconsistent": dropped["order_inconsistent"],
                "episode_s": time.perf_counter() - start,
            }
        )
        append_lines(opened.run.path / JOURNAL, [line])  # last: what is journaled is whole
        append_lines(opened.run.path / FILE, line["pairs"])
    opened.console.message(
        f"Round {number}/{config.rounds}: {samples} answers, {solved} pass; {len(pairs)} pairs ({judged} by the judge), "
        f"{time.perf_counter() - start:.0f} s"
    )
    return line


def log_answers(opened: Open[Any], problems: Sequence[Problem], groups: Sequence[Sequence[Answer]], number: int) -> None:
    """Every answer into `rollouts.jsonl`, for the report."""
    opened.run.log_rollouts(
        Rollout(number, problem, answer.completion, answer.feedback, held_out_passed=answer.held_out_passed)
        for problem, group in zip(problems, groups, strict=True)
        for answer in group
    )


def summarise(rows: Sequence[dict[str, Any]], pairs: Sequence[Pair], judge: PairJudge | None) -> dict[str, Any]:
    """Counts, what was dropped and why, how often the judge kept its word when the order turned, and agreement with held-out tests."""
    dropped = sum((Counter(row["dropped"]) for row in rows), Counter())
    by_judge = sum(pair.source == "judge" for pair in pairs)
    asked = by_judge + dropped["order_inconsistent"] + dropped["judge_undecided"]
    return {
        "rounds": len(rows),
        "samples": sum(row["samples"] for row in rows),
        "pairs": len(pairs),
        "problems": len({pair.problem_id for pair in pairs}),
        "by_source": {"execution": len(pairs) - by_judge, "judge": by_judge},
        "judge": judge.name if judge else None,
        "dropped": dict(sorted(dropped.items())),
        "order_consistency": 1 - dropped["order_inconsistent"] / asked if asked else None,
        "agreement_with_held_out_tests": agreement(pairs),
    }


def lines_of(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    lines = [f"{summary['pairs']} pairs of {summary['problems']} problems from {summary['samples']} answers"]
    lines[0] += f": {summary['by_source']['execution']} labelled by tests, {summary['by_source']['judge']} by the judge."
    if summary["dropped"]:
        lines.append("No pair was made of: " + ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in summary["dropped"].items()) + ".")
    if summary["order_consistency"] is not None:
        lines.append(f"The judge kept its choice when the order was turned in {summary['order_consistency']:.0%} of its comparisons.")
    for source in ("execution", "judge"):
        row = summary["agreement_with_held_out_tests"][source]
        if "agreement" in row:
            lines.append(
                f"Labels by {source} agree with held-out tests in {row['agreement']:.0%} (95% interval {row['low']:.0%} to {row['high']:.0%}) "
                f"of the {row['told_apart_by_held_out_tests']} pairs that those tell apart."
            )
    return lines
