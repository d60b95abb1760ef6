"""`rlaif judge train`: collect labelled programs, step by step and each step kept; then train, calibrate, measure and write the adapter."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.cli.flags import CommandLine
from rlaif.errors import UsageError
from rlaif.judge.collect import Candidate, from_references, from_samples, label
from rlaif.judge.labelled import Labelled, read_labelled
from rlaif.judge.negatives import from_attacks
from rlaif.judge.store import LabelStore
from rlaif.judge.train_config import CollectConfig, JudgeTrainCommand
from rlaif.types import Problem

if TYPE_CHECKING:
    from rlaif.sandbox import Sandbox

TRAIN = CommandLine(
    "rlaif judge train",
    "Train a judge: a LoRA adapter that the local judge reads, on programs labelled by running them.",
    "rlaif judge train --out my_judge --collect-only --collect.limit 2 --collect.policies '' --collect.per-problem 2",
    JudgeTrainCommand,
    details="Labels go into a folder beside --out and are kept: the same command again goes on where it stopped.",
)
Make = Callable[[Sequence[Problem]], Iterator[Candidate]]
_CHUNK = 16
"""Problems sampled and labelled together; what a crash can cost."""
_WITHIN_REACH = ("intro", "easy")
"""Levels that small models solve now and then."""
_MOST_PAIRS_FROM = 6


def run_train(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    config = TRAIN.parse(argv).settings
    folder = config.collect.labels or config.out.with_name(f"{config.out.name}_labels")
    train, held = collect(config, folder)
    if config.collect_only:
        right = sum(item.correct for item in train)
        print(f"{len(train)} labelled programs to learn from ({right} right) and {len(held)} to calibrate on, in {folder}")
        return 0
    from rlaif.judge.train import train_judge

    facts = train_judge(train, config, _log_to(folder / "training.jsonl"), calibration=held)
    figures = facts["figures"]["all"]
    print(f"{config.out}: AUROC {figures['auroc']:.3f}, pairs in order {figures['pair_accuracy']:.3f}, ECE {figures['ece']:.3f}")
    print(f"Use it: --judge local --judge.adapter {config.out}")
    return 0


def collect(config: JudgeTrainCommand, folder: Path) -> tuple[list[Labelled], list[Labelled]]:
    """Labelled programs of the training split, and of the validation split (for calibration)."""
    from rlaif.problems import load_problems
    from rlaif.sandbox import Sandbox

    wanted = config.collect
    found: list[list[Labelled]] = []
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(config.sandbox))
        for split in ("train", "validation"):
            try:
                problems = load_problems(wanted.problems, split=split, limit=wanted.limit)
            except UsageError:
                if split == "train":
                    raise
                problems = []  # a user's file may well have no validation split: shares of the rest take its place
            problems = [problem for problem in problems if problem.tests]
            known = {problem.id for problem in problems}  # labels may be older than the split
            paths = _stores(config, wanted, problems, folder / split, sandbox)
            found.append([item for path in paths for item in read_labelled(path) if item.problem.id in known])
    found[0] += [item for path in wanted.extra for item in read_labelled(path)]
    return found[0], found[1]


def _stores(config: JudgeTrainCommand, wanted: CollectConfig, problems: list[Problem], folder: Path, sandbox: Sandbox) -> list[Path]:
    """Fill (or go on with) one file per source of programs; returns them."""
    if not problems:
        return []
    from rlaif.problems.mutate import mutants

    paths: list[Path] = []

    def fill(
        name: str, made_with: dict[str, object], candidates: Callable[[Sequence[Problem]], Iterator[Candidate]], some: Sequence[Problem]
    ) -> None:
        from rlaif.sandbox import Job

        store = LabelStore(folder / f"{name}.jsonl", made_with)
        paths.append(store.path)
        missing = [problem for problem in some if problem.id not in store.done]
        start, right, wrong = time.perf_counter(), 0, 0
        for first in range(0, len(missing), _CHUNK):
            chunk = missing[first : first + _CHUNK]
            items = list(label(candidates(chunk), sandbox.run_many, Job))
            store.add([problem.id for problem in chunk], items)
            right += sum(item.correct for item in items)
            wrong += sum(not item.correct for item in items)
            _say(f"{folder.name}/{name}: {len(store.done)}/{len(some)} problems, +{right} right, +{wrong} wrong, {time.perf_counter() - start:.0f} s")

    if wanted.per_problem:
        fill(
            "references",
            {"per_problem": wanted.per_problem, "seed": config.seed},
            lambda chunk: from_references(chunk, mutants, per_problem=wanted.per_problem, seed=config.seed),
            problems,
        )
    if wanted.negatives:
        fill("negatives", {"seed": config.seed}, lambda chunk: from_attacks(chunk, problems, seed=config.seed), problems)
    for model in wanted.policies:
        made_with = {"model": model, "samples": wanted.samples, "max_new_tokens": wanted.max_new_tokens, "temperature": wanted.temperature}
        complete = _sampler(model, wanted, config)
        easy = [problem for problem in problems if problem.difficulty in _WITHIN_REACH]
        rest = [problem for problem in problems if problem.difficulty not in _WITHIN_REACH]
        name = f"samples-{Path(model).name}"
        fill(
            name,
            made_with,
            lambda chunk, complete=complete: from_samples(chunk, complete),
            [p for p in (*easy, *rest) if p.difficulty in wanted.levels],
        )
    for run in wanted.runs:
        answers = _answers_of(run)
        asked = [problem for problem in problems if problem.id in answers]
        if asked:
            some = lambda chunk, answers=answers: from_samples(chunk, lambda problems: [answers[problem.id] for problem in problems])  # noqa: E731
            fill(f"run-{run.name}", {"run": str(run.name)}, some, asked)
    if wanted.quality_judge:
        items = [item for path in paths for item in read_labelled(path)]
        paths.append(_quality(config, wanted, items, folder))
    return paths


def _sampler(model: str, wanted: CollectConfig, config: JudgeTrainCommand) -> Callable[[Sequence[Problem]], list[list[str]]]:
    """problems -> programs for each; the model is loaded when the first problem comes."""
    loaded: list = []

    def complete(problems: Sequence[Problem]) -> list[list[str]]:
        import torch

        from rlaif.policy.model import load_policy
        from rlaif.policy.sampler import SamplingParams
        from rlaif.train.rollout import generate

        if config.threads:
            torch.set_num_threads(config.threads)
        if not loaded:
            loaded.append(load_policy(model, trainable=False, device=config.device))
        params = SamplingParams(max_new_tokens=wanted.max_new_tokens, temperature=wanted.temperature)
        # Seeded by the chunk, so that a resumed collection samples what the whole one would have.
        import zlib

        seed = zlib.crc32(f"{config.seed} {problems[0].id}".encode())
        codes: dict[str, list[str]] = {}
        for some, count in (
            ([p for p in problems if p.difficulty in _WITHIN_REACH], wanted.samples),
            ([p for p in problems if p.difficulty not in _WITHIN_REACH], max(1, wanted.samples // 2)),
        ):
            if some:
                groups = generate(loaded[0], some, count, params, torch.Generator().manual_seed(seed))[2]
                codes |= {problem.id: [one.code for one in group] for problem, group in zip(some, groups, strict=True)}
        return [codes[problem.id] for problem in problems]

    return complete


def _answers_of(run: Path) -> dict[str, list[str]]:
    """Problem id -> the different programs that a training run's policies wrote for it."""
    import json

    found: dict[str, dict[str, None]] = {}
    try:
        with (run / "rollouts.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                found.setdefault(row["problem_id"], {})[row["code"]] = None
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{run} is no run to learn from", f"rollouts.jsonl: {error}", "a folder written by `rlaif train`") from None
    return {name: list(codes) for name, codes in found.items()}


def _quality(config: JudgeTrainCommand, wanted: CollectConfig, items: list[Labelled], folder: Path) -> Path:
    """Soft labels of one principle from a stronger model's comparisons of right programs."""
    import random

    from rlaif.judge.constitution import load_constitution
    from rlaif.judge.pairwise import PairwiseLabeller, Preference, soft_labels
    from rlaif.policy.model import load_policy

    constitution = load_constitution(config.constitution)
    principle = next((one for one in constitution.principles if one.id == wanted.quality_principle), None)
    if principle is None:
        raise UsageError(
            f"The constitution has no principle '{wanted.quality_principle}'", ", ".join(constitution.ids), "--collect.quality-principle"
        )
    store = LabelStore(folder / "quality.jsonl", {"model": wanted.quality_judge, "principle": principle.id, "pairs": wanted.quality_pairs})
    groups: dict[str, list[Labelled]] = {}
    for item in items:
        if item.correct:
            groups.setdefault(item.problem.id, []).append(item)
    missing = [name for name, group in groups.items() if name not in store.done and len(group) > 1]
    if missing:
        judge = load_policy(str(wanted.quality_judge), trainable=False, device=config.device)
        labeller = PairwiseLabeller(judge.model, judge.tokenizer, principle)
        for number, name in enumerate(missing, 1):
            rng = random.Random(f"{config.seed} {name}")
            some = rng.sample(groups[name], min(_MOST_PAIRS_FROM, len(groups[name])))
            every = list(itertools.combinations(some, 2))
            pairs = rng.sample(every, min(wanted.quality_pairs, len(every)))
            found: list[Preference] = [p for a, b in pairs if (p := labeller.compare(a.problem, a.code, b.code)) is not None]
            store.add([name], soft_labels(some[0].problem, found, principle.id))
            if number % 20 == 0 or number == len(missing):
                _say(f"{folder.name}/quality: {number}/{len(missing)} problems compared")
    return store.path


def _log_to(path: Path) -> Callable[[dict], None]:
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def log(row: dict) -> None:
        row = {**row, "seconds": round(time.perf_counter() - start, 1)}
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        _say("  ".join(f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))

    return log


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
