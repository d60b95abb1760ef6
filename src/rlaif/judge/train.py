"""Training a judge: a LoRA adapter in the very format that the local judge reads, from a file of labelled programs.

    metrics = train_judge(list(read_labelled(Path("labelled.jsonl"))), JudgeTrainConfig(base="smollm2-135m", out=Path("my_judge")))

The loss is the cross-entropy of the score tokens' odds against the label, and, within a problem, of the order of each (right, wrong) pair: a
subtle bug changes few tokens, and only its own problem's right programs show which ones matter. Problems are split whole into training,
validation (which epoch to keep) and calibration parts. Runs on a CPU with a tiny model, and on CUDA for real.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlaif.errors import UsageError
from rlaif.judge import checkpoint
from rlaif.judge.calibrate import fit_platt
from rlaif.judge.card import write_card
from rlaif.judge.constitution import BELIEF, Constitution, load_constitution
from rlaif.judge.embedded import ADAPTER_NAME, fingerprint
from rlaif.judge.evaluate import evaluate_judge
from rlaif.judge.labelled import Labelled, split_by_problem
from rlaif.judge.local import LocalJudge
from rlaif.judge.protocol import JudgeItem
from rlaif.judge.sanitise import Sanitised, sanitise
from rlaif.judge.train_config import JudgeTrainConfig
from rlaif.policy.logps import hidden_states
from rlaif.policy.model import Policy, load_policy
from rlaif.policy.packing import Group, Member

CHECKPOINT = "unfinished.safetensors"
"""In the output folder while training lasts."""


class Program(NamedTuple):
    """A labelled program as the judge would be shown it, and the group that it makes pairs in."""

    item: Labelled
    shown: str
    group: str

    @property
    def label(self) -> float:
        return self.item.label


class Example(NamedTuple):
    """One training row: token ids of what its problem's programs share, and of the rest; its label; the group it makes pairs in."""

    prompt_ids: list[int]
    ids: list[int]
    label: float
    group: str


def train_judge(
    items: Sequence[Labelled],
    config: JudgeTrainConfig,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    *,
    calibration: Sequence[Labelled] = (),
) -> dict[str, Any]:
    """Train, calibrate, measure and write the adapter folder; returns the card's figures.

    calibration: programs for other problems, beside the share of `items` kept for it. `log` is given a row per step and epoch.
    A run that was cut off goes on from its last checkpoint in `config.out`.
    Raises UsageError if the labels are all alike or there are too few problems to split.
    """
    parts = _parts(items, calibration, config)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    constitution = load_constitution(config.constitution)
    policy = load_policy(config.base, device=config.device, trainable=False)
    base_fingerprint = fingerprint(policy.base)
    policy.model.to(policy.compute_dtype)  # frozen, and in the type in which it will judge
    _add_adapter(policy, config)
    judge = LocalJudge(policy.model, policy.tokenizer, constitution, name=f"{config.out.name}", principles=_principles(items, constitution))
    optimiser = torch.optim.AdamW([p for p in policy.model.parameters() if p.requires_grad], lr=config.learning_rate, weight_decay=0.0)
    _train(policy, judge, optimiser, parts, config, log)
    facts = _write(judge, policy, parts, config, constitution, base_fingerprint)
    (config.out / CHECKPOINT).unlink(missing_ok=True)
    return facts


def _parts(items: Sequence[Labelled], calibration: Sequence[Labelled], config: JudgeTrainConfig) -> list[list[Labelled]]:
    if len({item.correct for item in items if item.principle == BELIEF}) < 2:
        raise UsageError("The labelled programs are all right or all wrong", "nothing can be learnt from them", "add programs of the other kind")
    parts = split_by_problem(items, config.shares, config.seed)
    parts[2] += calibration
    if not all(len({item.correct for item in part if item.principle == BELIEF}) == 2 for part in parts):
        raise UsageError(
            "Too few problems to split into training, validation and calibration", "each part needs right and wrong programs", "more problems"
        )
    validation = [item for item in parts[1] if item.principle == BELIEF]
    random.Random(config.seed).shuffle(validation)
    parts[1] = validation[: config.validation_programs]
    return parts


def _train(
    policy: Policy,
    judge: LocalJudge,
    optimiser: torch.optim.Optimizer,
    parts: list[list[Labelled]],
    config: JudgeTrainConfig,
    log: Callable[[dict[str, Any]], None],
) -> None:
    """All epochs; leaves the adapter of the best one in the model."""
    programs = _programs(judge, parts[0], config)
    problems = len({program.group for program in programs})
    per_epoch = math.ceil(problems / config.groups_per_step)
    total = config.epochs * per_epoch if config.max_steps is None else min(config.max_steps, config.epochs * per_epoch)
    config.out.mkdir(parents=True, exist_ok=True)
    run = config.model_dump(
        mode="json", include={"base", "rank", "alpha", "learning_rate", "epochs", "groups_per_step", "seed", "pair_weight", "start"}
    )
    run |= {"programs_per_group": config.programs_per_group, "problems": problems, "total": total}
    found = checkpoint.load(config.out / CHECKPOINT, policy.model, optimiser, run)
    first, best = found if found is not None else (0, None)
    groups: list[list[Program]] = []
    policy.model.train()
    for step in range(first, total):
        epoch, place = divmod(step, per_epoch)
        if not groups or place == 0:  # follows from the epoch, and delimiters from the step, so that a resumed run is the same run
            groups = _groups(programs, config, random.Random(f"{config.seed} {epoch}"))
        judge.secret = random.Random(f"{config.seed} step {step}").randbytes(16)  # no delimiter may come to mean anything
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, 0.05 * total)) * max(0.05, 1 - step / total)
        chosen = [[_example(judge, one) for one in group] for group in groups[place * config.groups_per_step : (place + 1) * config.groups_per_step]]
        log({"step": step, "epoch": epoch, "loss": _step(policy, judge, optimiser, chosen, config)})
        if place == per_epoch - 1 or step == total - 1:
            figures = _measure(judge, parts[1])["all"]
            policy.model.train()
            log({"epoch": epoch, **figures})
            if best is None or figures["auroc"] > best[0]:
                best = (figures["auroc"], {name: p.detach().clone() for name, p in policy.model.named_parameters() if p.requires_grad})
        if (step + 1) % config.save_every == 0 or step == total - 1:
            checkpoint.save(config.out / CHECKPOINT, policy.model, optimiser, best, run | {"step": step + 1})
    assert best is not None
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if name in best[1]:
                parameter.copy_(best[1][name])


def _add_adapter(policy: Policy, config: JudgeTrainConfig) -> None:
    from peft import LoraConfig, get_peft_model

    if config.start is not None:
        from peft import PeftModel

        policy.model = PeftModel.from_pretrained(policy.model, str(config.start), adapter_name=ADAPTER_NAME, is_trainable=True)
        return
    settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    policy.model = get_peft_model(policy.model, settings, adapter_name=ADAPTER_NAME)


def _principles(items: Sequence[Labelled], constitution: Constitution) -> list[str]:
    unknown = {item.principle for item in items} - set(constitution.ids)
    if unknown:
        raise UsageError(f"Labels for a principle that the constitution lacks: {min(unknown)}", ", ".join(constitution.ids), "--constitution")
    return sorted({item.principle for item in items})


def _programs(judge: LocalJudge, items: Sequence[Labelled], config: JudgeTrainConfig) -> list[Program]:
    """What a judge would be asked about; programs that it never would be, or too long to learn from, are left out."""
    programs = []
    for item in items:
        shown = sanitise(item.problem, item.code)
        if isinstance(shown, Sanitised):
            program = Program(item, shown.code, f"{item.problem.id}\0{item.principle}")
            if len(_example(judge, program).ids) <= config.longest_program:
                programs.append(program)
    return programs


def _example(judge: LocalJudge, program: Program) -> Example:
    """As token ids, with the judge's delimiters of the moment."""
    principle = next(one for one in judge.principles if one.id == program.item.principle)
    shared, own = judge.prompt_parts(program.item.problem, program.shown, principle)
    return Example(shared, own, program.label, program.group)


def _groups(programs: list[Program], config: JudgeTrainConfig, rng: random.Random) -> list[list[Program]]:
    """One list of programs per problem, right and wrong in equal parts where there are enough, in random order.

    On each side the kinds take turns, so that neither samples nor mutants crowd the other out.
    """
    by_group: dict[str, list[Program]] = {}
    for program in programs:
        by_group.setdefault(program.group, []).append(program)
    groups = []
    for members in by_group.values():
        rng.shuffle(members)
        half = config.programs_per_group // 2
        sides = [_in_turn([one for one in members if one.item.correct == right]) for right in (True, False)]
        groups.append([program for side in sides for program in side[:half]])
    rng.shuffle(groups)
    return groups


def _in_turn(members: list[Program]) -> list[Program]:
    kinds: dict[str, list[Program]] = {}
    for program in members:
        kinds.setdefault(program.item.kind, []).append(program)
    return [program for turn in zip_longest(*kinds.values()) for program in turn if program is not None]


def _step(policy: Policy, judge: LocalJudge, optimiser: torch.optim.Optimizer, groups: list[list[Example]], config: JudgeTrainConfig) -> float:
    """One optimiser step. Denominators are the whole step's, so results do not depend on how it is cut into micro-batches."""
    optimiser.zero_grad(set_to_none=True)
    programs = sum(map(len, groups))
    pairs = sum(one.label > other.label for members in groups for one in members for other in members)
    total = 0.0
    for batch in _micro_batches(groups, config.micro_batch_tokens):
        members = [example for group in batch for example in group]
        odds_B = odds(policy, judge, batch)
        loss = judge_loss(odds_B, [e.label for e in members], [e.group for e in members], config.pair_weight, programs, pairs)
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()
    return total


def _micro_batches(groups: list[list[Example]], tokens: int) -> list[list[list[Example]]]:
    """Whole groups, for a pair needs both its members; one group may exceed `tokens` alone. Alike in length, so that little is padding."""
    batches: list[list[list[Example]]] = []
    size = 0
    for group in sorted((group for group in groups if group), key=lambda group: -max(len(example.ids) for example in group)):
        length = len(group[0].prompt_ids) + sum(len(example.ids) for example in group)
        if not batches or size + length > tokens:
            batches.append([])
            size = 0
        batches[-1].append(group)
        size += length
    return batches


def odds(policy: Policy, judge: LocalJudge, groups: Sequence[Sequence[Example]]) -> Tensor:
    """log P(yes) - log P(no) [B] at the end of each program's prompt, group by group, in float32. A group's shared tokens run once."""
    count = itertools.count()
    # `hidden_states` is made for actions: it feeds all tokens but a member's last, so one more is added; and gives what precedes each.
    packed = [Group(group[0].prompt_ids, tuple(Member(next(count), [*example.ids, 0]) for example in group)) for group in groups]
    hidden_MD, _, row_M, time_M = hidden_states(policy, packed)
    last_B = torch.tensor([len(example.ids) for group in groups for example in group], device=time_M.device)
    at_end = time_M == last_B[row_M]
    hidden_BD = hidden_MD[at_end][row_M[at_end].argsort()]
    logits_BS = judge.score_head(hidden_BD)
    no = len(judge.score_token_ids[0])
    return logits_BS[:, no:].logsumexp(-1) - logits_BS[:, :no].logsumexp(-1)


def judge_loss(
    odds_B: Tensor, labels: Sequence[float], groups: Sequence[str], pair_weight: float, programs: int | None = None, pairs: int | None = None
) -> Tensor:
    """Cross-entropy of sigmoid(odds) against the labels over `programs`, plus pair_weight times the sum of -log sigmoid(right - wrong) over the
    pairs of one group (Bradley-Terry) over `pairs`. The denominators are by default those of this batch."""
    label_B = torch.tensor(labels, device=odds_B.device, dtype=odds_B.dtype)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(odds_B, label_B, reduction="sum") / (programs or len(labels))
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    group_B = torch.tensor([names[group] for group in groups], device=odds_B.device)
    pair_BB = (group_B[:, None] == group_B[None]) & (label_B[:, None] > label_B[None])
    if pair_weight and bool(pair_BB.any()):
        order = torch.nn.functional.softplus(-(odds_B[:, None] - odds_B[None]))[pair_BB].sum()
        loss = loss + pair_weight * order / (pairs or int(pair_BB.sum()))
    return loss


def _for_use(judge: LocalJudge) -> None:
    """As it will be used: with delimiters that no step of the training had, the same ones every time it is measured."""
    judge.model.eval()
    judge.forget()
    judge.secret = b"for measuring"


def _measure(judge: LocalJudge, items: Sequence[Labelled]) -> dict[str, Any]:
    _for_use(judge)
    return evaluate_judge(judge, [item for item in items if item.principle == BELIEF])


def _write(
    judge: LocalJudge, policy: Policy, parts: list[list[Labelled]], config: JudgeTrainConfig, constitution: Constitution, base_fingerprint: str
) -> dict[str, Any]:
    """Calibrate on the third part, measure on the second, write everything."""
    _for_use(judge)
    held = [item for item in parts[2] if item.principle == BELIEF and item.kind.startswith(config.calibrate_on)]
    pairs = [(report.score, item.correct) for report, item in zip(judge.score([JudgeItem(i.problem, i.code) for i in held]), held, strict=True)]
    known = [(score, correct) for score, correct in pairs if score is not None]
    judge.calibration = fit_platt([score for score, _ in known], [correct for _, correct in known])
    figures = _measure(judge, parts[1])
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    policy.model.save_pretrained(str(config.out), selected_adapters=[ADAPTER_NAME])
    _lift(config.out / ADAPTER_NAME, config.out)
    judge.calibration.save(config.out / "calibration.json")
    facts = {
        "base": config.base,
        "base_fingerprint": base_fingerprint,
        "constitution": constitution.fingerprint(),
        "principles": [principle.id for principle in judge.principles],
        "rank": config.rank,
        "programs": {name: len(part) for name, part in zip(("train", "validation", "calibration"), parts, strict=True)},
        "kinds": _kinds(parts[0]),
        "calibrated_on": {"kind": config.calibrate_on or "all", "programs": len(known), "correct": sum(correct for _, correct in known)},
        "figures": figures,
        "adapter_bytes": (config.out / "adapter_model.safetensors").stat().st_size,
    }
    write_card(config.out, facts, constitution)
    return facts


def _kinds(items: Sequence[Labelled]) -> dict[str, dict[str, int]]:
    """Programs by where they come from, right and wrong."""
    counts = Counter((item.kind, item.correct) for item in items)
    return {kind: {"right": counts[kind, True], "wrong": counts[kind, False]} for kind in sorted({item.kind for item in items})}


def _lift(folder: Path, out: Path) -> None:
    """peft writes a named adapter into a folder of its name; its files belong into `out`."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name != "README.md":
                path.replace(out / path.name)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    settings = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = None  # a path of the machine it was trained on; judge.json names the base
    (out / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
