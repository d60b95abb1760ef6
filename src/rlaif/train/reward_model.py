"""`rlaif prefer reward-model`: a scalar head on the model's body, trained by Bradley-Terry on preference pairs with soft labels.

The canonical RLAIF of arXiv 2309.00267 (and InstructGPT's second step, 2203.02155): labels → reward model → PPO. Pairs are split by problem;
those of the held-out problems measure the model and fit its calibration, and no step sees them. Data order depends on (seed, epoch) alone
and dropout is off, so a run killed and resumed ends bit for bit where an uninterrupted one ends.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlaif import __version__
from rlaif.algos.losses import bradley_terry_loss
from rlaif.errors import UsageError
from rlaif.evals import wilson
from rlaif.judge.calibrate import Calibration, fit_platt
from rlaif.judge.reward_model import FOLDER, RewardModel, load_classifier, squash
from rlaif.judge.sanitise import Sanitised, sanitise
from rlaif.runs import Console
from rlaif.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint, trainable_tensors
from rlaif.train.prefer_config import RewardModelConfig
from rlaif.train.prefer_run import Open, open_run
from rlaif.train.preference_data import Pair, preference_file, problems_of, read_pairs

KEEP = 2
LEAST_TO_CALIBRATE = 20
"""Held-out programs with known outcomes below which a calibration would be noise."""


@dataclass(frozen=True, slots=True)
class PairIds:
    """A pair as the reward model reads it."""

    pair: Pair
    chosen: list[int]
    rejected: list[int]

    @property
    def tokens(self) -> int:
        return 2 * max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True)
class RewardModelResult:
    """The run, the folder that `--judge reward_model --judge.model` takes, and the figures of its card."""

    path: Path
    folder: Path
    figures: dict[str, Any]


def train_reward_model(config: RewardModelConfig, *, console: Console | None = None) -> RewardModelResult:
    """Train, measure, calibrate and save. Raises UsageError, ProblemFileError, EnvironmentFailure, or Interrupted with a checkpoint written."""
    file = preference_file(config.preferences, "rlaif prefer reward-model")
    pairs = read_pairs(file, config.max_pairs)
    parts = split_pairs(pairs, config.held_out_share, config.seed)
    problems = problems_of(pairs, file, config.problems)
    with ExitStack() as stack:
        opened = stack.enter_context(open_run(config, console, "step"))
        config = opened.config
        torch.manual_seed(config.seed)
        model = load_classifier(
            config.model, dtype=config.dtype, device=config.device, trainable=True, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha
        )
        opened.run.write_env(device=str(model.device), compute_dtype=str(model.compute_dtype), seed=config.seed)
        train, held = (_encode(model, part, problems) for part in parts)
        left_out = len(pairs) - len(train) - len(held)
        if not train or not held:
            raise UsageError(f"No pair of {file} can be read by a reward model", f"{left_out} hold code that is refused", "other pairs")
        say = opened.console.message
        say(f"Training a reward model on {len(train)} pairs; {len(held)} of other problems are held out" + _left_out(left_out))
        _fit(opened, model, train)
        folder = opened.run.path / FOLDER
        card = {"rlaif": __version__, "base": config.model, "pairs": {"train": len(train), "held_out": len(held), "left_out": left_out}}
        model.save(folder, card)  # measured as it will be used: loaded from there, in the type it is stored in
        del model
        saved = load_classifier(str(folder), dtype=config.dtype, device=config.device)
        figures = {"train": measure(saved, train), "held_out": measure(saved, held)}
        calibration = _calibration(saved, held)
        card |= {"figures": figures, "calibration": asdict(calibration), "calibrated": calibration.kind == "platt"}
        opened.run.write_json(f"{FOLDER}/reward_model.json", card)
        (folder / "README.md").write_text(_readme(card, config), encoding="utf-8")
        opened.run.write_json("summary.json", card)
        for line in _lines(figures, calibration):
            say(line)
        say(f"Use it: rlaif train --feedback ai --judge reward_model --judge.model {opened.run.path}")
        return RewardModelResult(opened.run.path, folder, figures)


def split_pairs(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held-out) pairs, each problem whole on one side. Raises UsageError with fewer than two problems."""
    names = sorted({pair.problem_id for pair in pairs})
    if len(names) < 2:
        raise UsageError("All pairs are about one problem", "another one is needed to measure on", "`rlaif prefer collect` with more --rounds")
    random.Random(seed).shuffle(names)
    held = set(names[: min(len(names) - 1, max(1, round(len(names) * share)))])
    return [pair for pair in pairs if pair.problem_id not in held], [pair for pair in pairs if pair.problem_id in held]


def _encode(model: RewardModel, pairs: Sequence[Pair], problems: dict[str, Any]) -> list[PairIds]:
    """Pairs as token ids. A pair with code that no judge is asked about, or too long, or alike once sanitised, cannot be learnt from."""
    found: list[PairIds] = []
    for pair in pairs:
        problem = problems[pair.problem_id]
        shown = [sanitise(problem, code) for code in (pair.chosen_code, pair.rejected_code)]
        rows = [model.ids(problem, code.code) for code in shown if isinstance(code, Sanitised)]
        if len(rows) == 2 and rows[0] != rows[1] and max(map(len, rows)) <= model.max_tokens:
            found.append(PairIds(pair, *rows))
    return found


def _fit(opened: Open[RewardModelConfig], model: RewardModel, pairs: list[PairIds]) -> None:
    config, run = opened.config, opened.run
    head = [parameter for name, parameter in model.model.named_parameters() if parameter.requires_grad and ".score." in f".{name}"]
    body = [parameter for parameter in model.model.parameters() if parameter.requires_grad and not any(parameter is one for one in head)]
    groups = [{"params": body, "lr": config.learning_rate}, {"params": head, "lr": config.head_learning_rate}]
    base_rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=model.device.type in ("cpu", "cuda"))
    tensors = trainable_tensors(model.model)
    batches = [batch for epoch in range(config.epochs) for batch in _batches(pairs, config, epoch)]
    opened.total = len(batches)
    found = newest_checkpoint(run.checkpoints_path) if config.resume else None
    done = load_checkpoint(found, tensors, optimizer)["episode"] if found else 0
    run.truncate_to(done)
    opened.finished(done)
    step = done
    try:
        for step in range(done + 1, len(batches) + 1):
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):  # linear decay to zero
                group["lr"] = rate * (1 - (step - 1) / len(batches))
            with opened.guard.protected():
                metrics = train_step(model, optimizer, batches[step - 1], config)
                run.log_metrics({"episode": step, **metrics})
                done = step
            if step % config.save_every == 0 or step == len(batches):
                save_checkpoint(run.checkpoints_path, step, tensors, optimizer, {}, keep=KEEP)
                opened.finished(step)
            if step % max(1, len(batches) // 20) == 0 or step == len(batches):
                opened.console.message(f"Step {step}/{len(batches)}: loss {metrics['loss']:.3f}, accuracy {metrics['pair_accuracy']:.0%}")
    except KeyboardInterrupt:
        if opened.done != done:
            save_checkpoint(run.checkpoints_path, done, tensors, optimizer, {}, keep=KEEP)
            opened.finished(done)
        raise


def _batches(pairs: list[PairIds], config: RewardModelConfig, epoch: int) -> list[list[PairIds]]:
    order = list(range(len(pairs)))
    random.Random(f"{config.seed}/{epoch}").shuffle(order)
    size = config.pairs_per_step
    return [[pairs[place] for place in order[start : start + size]] for start in range(0, len(order), size)]


def train_step(model: RewardModel, optimizer: torch.optim.Optimizer, batch: Sequence[PairIds], config: RewardModelConfig) -> dict[str, float]:
    """One optimiser step on the mean Bradley-Terry loss of the batch, cut into micro-batches of whole pairs."""
    loss_sum = margin_sum = right = 0.0
    for micro in _micro_batches(batch, config.micro_batch_tokens):
        rewards_2M = model.rewards([one.chosen for one in micro] + [one.rejected for one in micro])
        chosen_M, rejected_M = rewards_2M.chunk(2)
        probability_M = torch.tensor([one.pair.label_probability for one in micro], device=rewards_2M.device)
        loss_M = bradley_terry_loss(chosen_M, rejected_M, probability_M)
        (loss_M.sum() / len(batch)).backward()
        gap_M = (chosen_M - rejected_M).detach()
        loss_sum += float(loss_M.detach().sum())
        margin_sum += float(gap_M.sum())
        right += float((gap_M > 0).sum()) + 0.5 * float((gap_M == 0).sum())
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm))
    if norm == norm and norm != float("inf"):  # one overflow must not poison the moments
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    count = len(batch)
    return {"loss": loss_sum / count, "pair_accuracy": right / count, "reward_margin": margin_sum / count, "grad_norm": norm}


def _micro_batches(batch: Sequence[PairIds], tokens: int) -> list[list[PairIds]]:
    batches: list[list[PairIds]] = []
    for one in sorted(batch, key=lambda one: one.tokens):
        if not batches or (len(batches[-1]) + 1) * one.tokens > tokens:
            batches.append([])
        batches[-1].append(one)
    return batches


def measure(model: RewardModel, pairs: Sequence[PairIds]) -> dict[str, Any]:
    """Share of pairs whose chosen program gets the higher reward (ties half), with its interval; by source as well."""
    rewards = model.score_rows([one.chosen for one in pairs] + [one.rejected for one in pairs])
    gaps = [chosen - rejected for chosen, rejected in zip(rewards[: len(pairs)], rewards[len(pairs) :], strict=True)]

    def part(places: list[int]) -> dict[str, Any]:
        right = sum((gaps[place] > 0) + 0.5 * (gaps[place] == 0) for place in places)
        interval = wilson(round(right), len(places))
        return {"pairs": len(places), "accuracy": right / len(places), "low": interval.low, "high": interval.high}

    sources = {source: [place for place, one in enumerate(pairs) if one.pair.source == source] for source in ("execution", "judge")}
    return {"all": part(list(range(len(pairs))))} | {source: part(places) for source, places in sources.items() if places}


def _calibration(model: RewardModel, held: Sequence[PairIds]) -> Calibration:
    """Platt on held-out programs whose graded tests were run; with too few of them, a sigmoid around their mean reward."""
    rows: dict[tuple[int, ...], bool | None] = {}
    for one in held:
        rows[tuple(one.chosen)] = one.pair.chosen_graded
        rows[tuple(one.rejected)] = one.pair.rejected_graded
    rewards = dict(zip(rows, model.score_rows(list(rows)), strict=True))
    known = [(rewards[row], passed) for row, passed in rows.items() if passed is not None]
    if len(known) >= LEAST_TO_CALIBRATE and len({passed for _, passed in known}) == 2:
        return fit_platt([squash(reward) for reward, _ in known], [bool(passed) for _, passed in known])
    # Only differences of rewards mean something: the mean of what it was shown becomes one half.
    return Calibration("platt", 1.0, -sum(rewards.values()) / len(rewards))


def _left_out(count: int) -> str:
    return f" ({count} hold code that no judge is shown)." if count else "."


def _lines(figures: dict[str, Any], calibration: Calibration) -> list[str]:
    lines = []
    for name, row in figures["held_out"].items():
        lines.append(
            f"Held-out pairs ({name}): {row['accuracy']:.1%} in the right order "
            f"(95% interval {row['low']:.1%} to {row['high']:.1%}, {row['pairs']} pairs)"
        )
    lines.append(f"Belief = sigmoid({calibration.slope:.2f} · reward {calibration.offset:+.2f}).")
    return lines


def _readme(card: dict[str, Any], config: RewardModelConfig) -> str:
    lines = ["---", f"base_model: {config.model}", "tags: [rlaif, reward-model]", "---", "", f"# Reward model on {Path(config.model).name}", ""]
    counts = card["pairs"]
    lines.append(f"Trained with rlaif {__version__} by Bradley-Terry on {counts['train']} preference pairs.")
    lines.append(f"{counts['held_out']} pairs of other problems were held out.")
    lines += ["", *[f"- {line}" for line in _lines(card["figures"], Calibration(**card["calibration"]))]]
    lines += ["", "It loads with `AutoModelForSequenceClassification.from_pretrained` (one label: the reward). It reads a task and a program rebuilt"]
    lines += ["without comments and names of its author's, as `rlaif.judge.reward_model` lays them out.", ""]
    return "\n".join(lines)
