"""`rlaif prefer revise`: the first stage of Constitutional AI (arXiv 2212.08073, section 3) for code.

    sample an answer → criticise it by a sampled principle → revise it → run the revision → keep those that pass → fine-tune on them

The critique and the revision are written by the judge, which is told the task with its shown tests, the program and the principle, and
nothing else: no graded or held-out test, no outcome of one, no reference. Whether the judge is big enough for this is measured and said.
Rounds are journaled as in collect_pairs.py; fine-tuning is deterministic and short, so an interrupted one starts again.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rlaif import __version__
from rlaif.errors import RunFailed
from rlaif.judge.writer import (
    Writer,
    Written,
    critique_messages,
    make_writer,
    principles_of,
    revision_messages,
    usable_critique,
    usable_revision,
)
from rlaif.policy.memory import give_back_memory
from rlaif.policy.model import Policy, load_policy
from rlaif.problems.prompting import FENCE_START, cut_at_fence, last_code_block, opening_of
from rlaif.runs import Console
from rlaif.runs.files import append_lines, dumps, write_text_atomic
from rlaif.sandbox import Job, Sandbox
from rlaif.train.collect_pairs import JOURNAL, Sampler, journaled, log_answers, seed_of, training_problems
from rlaif.train.pairing import Answer
from rlaif.train.prefer_config import ReviseConfig
from rlaif.train.prefer_run import Lift, Open, evaluate_once, held_out_of, lift_of, open_run, save_whole
from rlaif.train.warm_start import reference_ids, warm_start
from rlaif.types import Problem

LEAST_USABLE = 0.5
"""A judge is too small if less than this share of what it writes can be used."""
LEAST_TRIED, LEAST_FAILING = 20, 10
"""Answers, and failing ones among them, below which nothing is said about the judge."""


@dataclass(frozen=True, slots=True)
class Revised:
    """One answer's way through critique and revision. `repaired` and so on follow from the two outcomes by graded tests."""

    problem_id: str
    principle: str
    code: str
    critique: str
    revised: str | None
    critique_usable: bool
    revision_usable: bool
    passed_before: bool | None
    passed_after: bool | None
    again: float | None
    """Share of this problem's *other* sampled answers that pass: what sampling once more would give, with no critique at all."""
    error: str | None = None

    @property
    def kept(self) -> bool:
        return self.revision_usable and self.passed_after is True


@dataclass(frozen=True, slots=True)
class RevisionResult:
    """The run, its held-out results, and `summary.json`."""

    path: Path
    lift: Lift
    summary: dict[str, Any]


def revise(config: ReviseConfig, *, console: Console | None = None, writer: Writer | None = None) -> RevisionResult:
    """Collect revisions, fine-tune on those that pass, and evaluate before and after.

    writer: in place of the judge that the settings name. Raises UsageError (a judge that cannot write), EnvironmentFailure, Interrupted, and
    RunFailed where no revision passes, with what was measured of the judge.
    """
    problems, held_out = training_problems(config), held_out_of(config)
    with ExitStack() as stack:
        opened = stack.enter_context(open_run(config, console, "round"))
        config = opened.config
        sandbox = stack.enter_context(Sandbox(config.sandbox))
        torch.manual_seed(config.seed)
        policy = load_policy(
            config.model, dtype=config.dtype, device=config.device, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha
        )  # a fresh adapter changes nothing: what samples is the model itself
        writer = writer or make_writer(config.judge, policy=policy, cache_dir=opened.run.path)
        opened.run.write_env(sandbox=sandbox.describe(), device=str(policy.device), seed=config.seed, judge=writer.name)
        evaluate_once("before", opened, lambda: policy, held_out, sandbox)
        sampler = Sampler(config, problems, policy, sandbox)
        rows = journaled(opened, sampler)
        opened.console.message(f"Revising answers of {config.model}, written by {writer.name}: {config.rounds} rounds.")
        for number in range(len(rows) + 1, config.rounds + 1):
            rows.append(_round(opened, sampler, writer, number))
            opened.finished(number)
        revisions = [Revised(**row) for line in rows for row in line["revisions"]]
        write_text_atomic(opened.run.path / "revisions.jsonl", "".join(dumps({**asdict(one), "kept": one.kept}) + "\n" for one in revisions))
        summary = summarise(revisions, writer.name) | {"samples": sum(row["samples"] for row in rows)}
        opened.run.write_json("summary.json", summary)
        for line in lines_of(summary):
            opened.console.message(line)
        summary |= _fine_tune(opened, policy, problems, revisions, summary)
        opened.run.write_json("summary.json", summary)
        del policy, sampler
        give_back_memory()
        saved = opened.run.model_path
        evaluate_once("after", opened, lambda: load_policy(saved, dtype=config.dtype, device=config.device, trainable=False), held_out, sandbox)
        return RevisionResult(opened.run.path, lift_of(opened), summary)


def _round(opened: Open[ReviseConfig], sampler: Sampler, writer: Writer, number: int) -> dict[str, Any]:
    start = time.perf_counter()
    config = opened.config
    problems, groups, outcomes = sampler.round(number)
    revisions = revise_answers(problems, groups, writer, config, sampler.sandbox, number)
    kept = sum(one.kept for one in revisions)
    line = {"round": number, "outcomes": outcomes, "samples": 3 * len(revisions), "revisions": [asdict(one) for one in revisions]}
    scored = sum(total for _, _, total in outcomes)
    with opened.guard.protected():
        log_answers(opened, problems, groups, number)
        opened.run.log_metrics(
            {
                "episode": number,
                "samples": line["samples"],
                "pass_rate": sum(passed for _, passed, _ in outcomes) / scored if scored else None,
                "usable_critiques": sum(one.critique_usable for one in revisions),
                "usable_revisions": sum(one.revision_usable for one in revisions),
                "revisions_kept": kept,
                "episode_s": time.perf_counter() - start,
            }
        )
        append_lines(opened.run.path / JOURNAL, [line])
    took = f"{time.perf_counter() - start:.0f} s"
    opened.console.message(f"Round {number}/{config.rounds}: {len(revisions)} answers revised, {kept} revisions pass, {took}")
    return line


def revise_answers(
    problems: Sequence[Problem], groups: Sequence[Sequence[Answer]], writer: Writer, config: ReviseConfig, sandbox: Sandbox, number: int
) -> list[Revised]:
    """Criticise and revise each answer once, and run the revisions on the graded tests."""
    rng = random.Random(seed_of(config.seed, -number))
    principles = principles_of(config.judge)
    rows = [(problem, answer, _again(answer, group)) for problem, group in zip(problems, groups, strict=True) for answer in group]
    chosen = [rng.choices(principles, [principle.weight for principle in principles])[0] for _ in rows]
    codes = [answer.completion.code for _, answer, _ in rows]
    asked = [critique_messages(problem, code, principle) for (problem, _, _), code, principle in zip(rows, codes, chosen, strict=True)]
    critiques = writer.write(asked, max_tokens=config.critique_tokens, seed=seed_of(config.seed, 2 * number))
    asked = [
        revision_messages(problem, code, principle, critique.text)
        for (problem, _, _), code, principle, critique in zip(rows, codes, chosen, critiques, strict=True)
    ]
    openings = [FENCE_START + opening_of(problem) for problem, _, _ in rows]  # for a writer that can continue a text
    answers = writer.write(asked, max_tokens=config.revision_tokens, seed=seed_of(config.seed, 2 * number + 1), openings=openings)
    programs = [program_of(answer) for answer in answers]
    usable = [usable_revision(problem, code, program) for (problem, _, _), code, program in zip(rows, codes, programs, strict=True)]
    jobs = [Job(rows[place][0], programs[place] or "") for place in range(len(rows)) if usable[place] and rows[place][0].tests_of("graded")]
    reports = iter(sandbox.run_many(jobs))
    passed: list[bool | None] = []
    for place, (problem, _, _) in enumerate(rows):
        report = next(reports) if usable[place] and problem.tests_of("graded") else None
        passed.append(report.all_passed if report is not None and report.outcome != "infra_failure" else None)
    return [
        Revised(
            problem.id,
            principle.id,
            code,
            critique.text,
            program,
            usable_critique(critique, problem, code),
            fits,
            answer.graded,
            after,
            again,
            critique.error or written.error,
        )
        for (problem, answer, again), principle, code, critique, written, program, fits, after in zip(
            rows, chosen, codes, critiques, answers, programs, usable, passed, strict=True
        )
    ]


def program_of(written: Written) -> str | None:
    """The program in a reply: its last whole code block; else what follows an open fence; else the reply, if it is code from its start."""
    if written.error:
        return None
    text = written.text
    block = last_code_block(text + "\n")
    if block is not None:
        return block
    opened = re.search(r"```[ \t]*(?:[Pp]ython3?|py)?[ \t]*\n", text)
    rest = cut_at_fence(text[opened.end() :] if opened else text)
    return rest if rest.strip() else None


def _again(answer: Answer, group: Sequence[Answer]) -> float | None:
    others = [one.graded for one in group if one is not answer and one.graded is not None]
    return sum(others) / len(others) if others else None


def summarise(revisions: Sequence[Revised], writer: str) -> dict[str, Any]:
    """Shares of what could be used, what revising repaired and broke, and whether the judge is big enough (None: too few to say)."""
    count = len(revisions)
    needing = [one for one in revisions if one.passed_before is not True]  # of a right answer, the same again is no bad revision
    failed = [one for one in revisions if one.passed_before is False]
    solved = [one for one in revisions if one.passed_before is True]
    baseline = [one.again for one in failed if one.again is not None]
    row: dict[str, Any] = {
        "writer": writer,
        "answers": count,
        "errors": sum(one.error is not None for one in revisions),
        "usable_critique_share": sum(one.critique_usable for one in revisions) / count if count else None,
        "usable_revision_share": sum(one.revision_usable for one in needing) / len(needing) if needing else None,
        "failing_answers": len(failed),
        "repaired_share": sum(one.kept for one in failed) / len(failed) if failed else None,
        "sampled_again_share": sum(baseline) / len(baseline) if baseline else None,
        "passing_answers": len(solved),
        "broken_share": sum(one.revision_usable and one.passed_after is False for one in solved) / len(solved) if solved else None,
        "kept": sum(one.kept for one in revisions),
    }
    return row | {"too_small": too_small(row)}


def too_small(row: dict[str, Any]) -> list[str] | None:
    """Reasons why this judge is too small to revise with; [] if there is none, None if too little was tried."""
    if row["answers"] < LEAST_TRIED:
        return None
    reasons = []
    for what in ("critique", "revision"):
        share = row[f"usable_{what}_share"]
        if share is not None and share < LEAST_USABLE:
            of_what = f"{what}s" + (" of answers that do not pass" if what == "revision" else "")
            reasons.append(f"only {share:.0%} of its {of_what} can be used")
    repaired, again = row["repaired_share"], row["sampled_again_share"]
    if repaired is not None and again is not None and row["failing_answers"] >= LEAST_FAILING and repaired <= again:
        reasons.append(f"it repairs {repaired:.0%} of failing answers, and sampling again without it solves {again:.0%}")
    return reasons


def lines_of(summary: dict[str, Any]) -> list[str]:
    """The summary for people; says plainly when the judge is too small."""

    def share(name: str) -> str:
        return "–" if summary[name] is None else f"{summary[name]:.0%}"

    lines = [
        f"{summary['answers']} answers revised: {share('usable_critique_share')} of the critiques and {share('usable_revision_share')} of the "
        f"revisions of answers that do not pass can be used; {summary['kept']} revisions pass the tests and are kept.",
        f"Of {summary['failing_answers']} failing answers {share('repaired_share')} were repaired (sampling again would solve "
        f"{share('sampled_again_share')}); of {summary['passing_answers']} passing ones {share('broken_share')} were broken.",
    ]
    if summary["errors"]:
        lines.append(f"{summary['errors']} answers have no revision, because the writer failed.")
    if summary["too_small"]:
        reasons = "; ".join(summary["too_small"])
        lines.append(f"This judge ({summary['writer']}) is too small to revise with: {reasons}. Use --judge api, or a larger --judge local.")
    return lines


def _fine_tune(
    opened: Open[ReviseConfig], policy: Policy, problems: Sequence[Problem], revisions: Sequence[Revised], summary: dict[str, Any]
) -> dict[str, int]:
    """Supervised steps on the kept revisions, as the warm start does them on references. Raises RunFailed if there is none."""
    config = opened.config
    by_id = {problem.id: problem for problem in problems}
    distinct = {(one.problem_id, one.revised): one for one in revisions if one.kept}.values()
    taught = [replace(by_id[one.problem_id], reference=one.revised) for one in distinct]
    taught = [problem for problem in taught if reference_ids(policy, problem) is not None]  # a helper above the signature cannot be taught
    if not taught:
        why = f"{summary['kept']} of {summary['answers']} revisions pass" + (", in a form that the prompt can lead to" if summary["kept"] else "")
        raise RunFailed(
            "There is no revision to learn from", why, "a larger judge (--judge api, or --judge local --judge.model NAME), or more --rounds"
        )
    if not (opened.run.model_path / "config.json").exists():
        steps = math.ceil(len(taught) / min(len(taught), config.sft_batch_size)) * config.epochs
        settings = config.as_train_config(output_dir=None, resume=False, sft_steps=steps, sft_learning_rate=config.learning_rate)
        generator = torch.Generator().manual_seed(config.seed)
        opened.console.message(f"Fine-tuning on {len(taught)} revisions: {steps} steps.")
        warm_start(policy, taught, settings, generator, lambda step, loss: opened.console.stage(f"fine-tuning, loss {loss:.2f}", step, steps))
        save_whole(policy, opened.run)
        text = f"---\nbase_model: {config.model}\n---\n\n# {Path(config.model).name} fine-tuned on its revised answers\n\n"
        text += f"Trained with rlaif {__version__} on {len(taught)} revisions by {summary['writer']} that pass their tests.\n"
        (opened.run.model_path / "README.md").write_text(text, encoding="utf-8")
    opened.run.publish_model()
    return {"taught": len(taught)}
