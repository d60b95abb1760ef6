"""Training a judge: a LoRA adapter in the very format that the local judge reads, from a file of labelled programs.

    metrics = train_judge(list(read_labelled(Path("labelled.jsonl"))), JudgeTrainConfig(base="smollm2-135m", out=Path("my_judge")))

The loss is the cross-entropy of the score tokens' odds against the label, and, within a problem, of the order of each (right, wrong) pair: a
subtle bug changes few tokens, and only its own problem's right programs show which ones matter. Problems are split whole into training,
validation (which epoch to keep) and calibration parts. Runs on a CPU with a tiny model, and on CUDA for real.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rlaif.config import Device, Settings
from rlaif.errors import UsageError
from rlaif.judge.calibrate import fit_platt
from rlaif.judge.card import judge_card
from rlaif.judge.constitution import BELIEF, Constitution, load_constitution
from rlaif.judge.embedded import ADAPTER_NAME, BASE_MODEL, fingerprint
from rlaif.judge.evaluate import evaluate_judge
from rlaif.judge.labelled import Labelled, split_by_problem
from rlaif.judge.local import LocalJudge, head_input
from rlaif.judge.protocol import JudgeItem
from rlaif.judge.sanitise import Sanitised, sanitise
from rlaif.policy.model import Policy, load_policy

MAX_ADAPTER_BYTES = 16 * 2**20


class JudgeTrainConfig(Settings):
    """One training of a judge adapter."""

    base: str = BASE_MODEL
    """Base model: a folder, a Hub name or an alias."""
    out: Path
    """Folder for the adapter, its calibration and its card."""
    rank: int = Field(16, ge=1)
    """LoRA rank, on every linear layer."""
    alpha: int = Field(32, ge=1)
    learning_rate: float = Field(4e-4, gt=0)
    epochs: int = Field(3, ge=1)
    groups_per_step: int = Field(16, ge=1)
    """Problems in one optimiser step; their programs come together, so that there are pairs."""
    programs_per_group: int = Field(8, ge=2)
    """Programs of one problem in one step, right and wrong in equal parts where there are enough."""
    micro_batch_tokens: int = Field(16384, ge=256)
    """Tokens, padding included, in one forward pass; lower it if memory runs out. Results do not depend on it."""
    pair_weight: float = Field(0.5, ge=0)
    """Weight of the order loss beside the cross-entropy."""
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of the problems for training, validation and calibration."""
    constitution: Path | None = None
    device: Device = "auto"
    seed: int = 0
    max_steps: int | None = Field(None, ge=1)


class Example:
    """One training row: token ids, label, and the problem it shares with others."""

    __slots__ = ("group", "ids", "label")

    def __init__(self, ids: list[int], label: float, group: str) -> None:
        self.ids, self.label, self.group = ids, label, group


def train_judge(items: Sequence[Labelled], config: JudgeTrainConfig, log: Callable[[dict[str, Any]], None] = lambda row: None) -> dict[str, Any]:
    """Train, calibrate, measure and write the adapter folder; returns the card's figures.

    Raises UsageError if the labels are all alike or there are too few problems to split. `log` is given a row per step and epoch.
    """
    if len({item.correct for item in items if item.principle == BELIEF}) < 2:
        raise UsageError("The labelled programs are all right or all wrong", "nothing can be learnt from them", "add programs of the other kind")
    parts = split_by_problem(items, config.shares, config.seed)
    if not all(len({item.correct for item in part if item.principle == BELIEF}) == 2 for part in parts):
        raise UsageError(
            "Too few problems to split into training, validation and calibration", "each part needs right and wrong programs", "more problems"
        )
    torch.manual_seed(config.seed)
    constitution = load_constitution(config.constitution)
    policy = load_policy(config.base, dtype="float32", device=config.device, trainable=False)
    base_fingerprint = fingerprint(policy.base)
    _add_adapter(policy, config)
    judge = LocalJudge(policy.model, policy.tokenizer, constitution, name=f"{config.out.name}", principles=_principles(items, constitution))
    best: tuple[float, dict[str, Tensor]] | None = None
    step = 0
    total = config.epochs * math.ceil(len({item.problem.id for item in parts[0]}) / config.groups_per_step)
    optimiser = torch.optim.AdamW([p for p in policy.model.parameters() if p.requires_grad], lr=config.learning_rate, weight_decay=0.0)
    rng = random.Random(config.seed)
    for epoch in range(config.epochs):
        judge.secret = secrets.token_bytes(16)  # another delimiter each time: none may come to mean anything
        groups = _groups(_examples(judge, parts[0]), config, rng)
        policy.model.train()
        for start in range(0, len(groups), config.groups_per_step):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, 0.05 * total)) * max(0.05, 1 - step / total)
            batch = [example for members in groups[start : start + config.groups_per_step] for example in members]
            log({"step": step, "epoch": epoch, "loss": _step(judge, optimiser, batch, config)})
            step += 1
            if config.max_steps is not None and step >= config.max_steps:
                break
        figures = _measure(judge, parts[1])["all"]
        log({"epoch": epoch, **figures})
        if best is None or figures["auroc"] > best[0]:
            best = (figures["auroc"], {name: p.detach().clone() for name, p in policy.model.named_parameters() if p.requires_grad})
        if config.max_steps is not None and step >= config.max_steps:
            break
    assert best is not None
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if name in best[1]:
                parameter.copy_(best[1][name])
    return _write(judge, policy, parts, config, constitution, base_fingerprint)


def _add_adapter(policy: Policy, config: JudgeTrainConfig) -> None:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    policy.model = get_peft_model(policy.model, settings, adapter_name=ADAPTER_NAME)


def _principles(items: Sequence[Labelled], constitution: Constitution) -> list[str]:
    unknown = {item.principle for item in items} - set(constitution.ids)
    if unknown:
        raise UsageError(f"Labels for a principle that the constitution lacks: {min(unknown)}", ", ".join(constitution.ids), "--constitution")
    return sorted({item.principle for item in items})


def _examples(judge: LocalJudge, items: Sequence[Labelled]) -> list[Example]:
    """What the judge would be asked, as token ids; programs that no judge is asked about are left out."""
    principles = {principle.id: principle for principle in judge.principles}
    examples = []
    for item in items:
        shown = sanitise(item.problem, item.code)
        if isinstance(shown, Sanitised):
            ids = judge.prompt_ids(item.problem, shown.code, principles[item.principle])
            examples.append(Example(ids, item.label, f"{item.problem.id}\0{item.principle}"))
    return examples


def _groups(examples: list[Example], config: JudgeTrainConfig, rng: random.Random) -> list[list[Example]]:
    """One list of programs per problem, right and wrong mixed, in random order."""
    by_group: dict[str, list[Example]] = {}
    for example in examples:
        by_group.setdefault(example.group, []).append(example)
    groups = []
    for members in by_group.values():
        rng.shuffle(members)
        half = config.programs_per_group // 2
        sides = [[e for e in members if (e.label >= 0.5) == right] for right in (True, False)]
        groups.append([example for side in sides for example in side[:half]])
    rng.shuffle(groups)
    return groups


def _step(judge: LocalJudge, optimiser: torch.optim.Optimizer, batch: list[Example], config: JudgeTrainConfig) -> float:
    """One optimiser step; the order loss needs all odds at once, so the gradient is taken in two passes: odds first, then chunk by chunk."""
    optimiser.zero_grad(set_to_none=True)
    chunks = _chunks(batch, config.micro_batch_tokens)
    with torch.no_grad():
        odds_B = torch.cat([odds(judge, [batch[i].ids for i in chunk]) for chunk in chunks])
    order = [index for chunk in chunks for index in chunk]
    leaf = odds_B.clone().requires_grad_(True)
    loss = judge_loss(leaf, [batch[i].label for i in order], [batch[i].group for i in order], config.pair_weight)
    (gradient_B,) = torch.autograd.grad(loss, leaf)
    start = 0
    for chunk in chunks:
        odds(judge, [batch[i].ids for i in chunk]).backward(gradient_B[start : start + len(chunk)])
        start += len(chunk)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    return loss.item()


def _chunks(batch: list[Example], tokens: int) -> list[list[int]]:
    order = sorted(range(len(batch)), key=lambda index: len(batch[index].ids))
    chunks: list[list[int]] = [[]]
    for index in order:
        if chunks[-1] and (len(chunks[-1]) + 1) * len(batch[index].ids) > tokens:
            chunks.append([])
        chunks[-1].append(index)
    return chunks


def odds(judge: LocalJudge, prompts: list[list[int]]) -> Tensor:
    """log P(yes) - log P(no) [B] at the end of each prompt, in float32, with gradients where they are on."""
    model, longest = judge.model, max(map(len, prompts))
    ids_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    position_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    device = model.device
    fast = device.type == "cuda"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast), head_input(model) as hidden:
        output = model(
            input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), position_ids=position_BT.to(device), use_cache=False, logits_to_keep=1
        )
    logits_BS = judge.score_logits(output.logits, hidden)[:, 0]
    no = len(judge.score_token_ids[0])
    return logits_BS[:, no:].logsumexp(-1) - logits_BS[:, :no].logsumexp(-1)


def judge_loss(odds_B: Tensor, labels: Sequence[float], groups: Sequence[str], pair_weight: float) -> Tensor:
    """Mean cross-entropy of sigmoid(odds) against the labels, plus pair_weight times the mean of -log sigmoid(right - wrong) over the pairs of
    one group (Bradley-Terry)."""
    label_B = torch.tensor(labels, device=odds_B.device, dtype=odds_B.dtype)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(odds_B, label_B)
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    group_B = torch.tensor([names[group] for group in groups], device=odds_B.device)
    pair_BB = (group_B[:, None] == group_B[None]) & (label_B[:, None] > label_B[None])
    if pair_weight and bool(pair_BB.any()):
        loss = loss + pair_weight * torch.nn.functional.softplus(-(odds_B[:, None] - odds_B[None]))[pair_BB].mean()
    return loss


def _measure(judge: LocalJudge, items: Sequence[Labelled]) -> dict[str, Any]:
    judge.model.eval()
    judge.forget()
    return evaluate_judge(judge, [item for item in items if item.principle == BELIEF])


def _write(
    judge: LocalJudge, policy: Policy, parts: list[list[Labelled]], config: JudgeTrainConfig, constitution: Constitution, base_fingerprint: str
) -> dict[str, Any]:
    """Calibrate on the third part, measure on the second, write everything."""
    judge.model.eval()
    judge.forget()
    held = [item for item in parts[2] if item.principle == BELIEF]
    pairs = [(report.score, item.correct) for report, item in zip(judge.score([JudgeItem(i.problem, i.code) for i in held]), held, strict=True)]
    known = [(score, correct) for score, correct in pairs if score is not None]
    judge.calibration = fit_platt([score for score, _ in known], [correct for _, correct in known])
    figures = _measure(judge, parts[1])
    config.out.mkdir(parents=True, exist_ok=True)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    policy.model.save_pretrained(str(config.out), selected_adapters=[ADAPTER_NAME])
    _lift(config.out / ADAPTER_NAME, config.out)
    judge.calibration.save(config.out / "calibration.json")
    counts = {name: len(part) for name, part in zip(("train", "validation", "calibration"), parts, strict=True)}
    facts = {
        "base": config.base,
        "base_fingerprint": base_fingerprint,
        "constitution": constitution.fingerprint(),
        "principles": [principle.id for principle in judge.principles],
        "rank": config.rank,
        "programs": counts,
        "figures": figures,
        "adapter_bytes": (config.out / "adapter_model.safetensors").stat().st_size,
    }
    (config.out / "judge.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (config.out / "README.md").write_text(judge_card(facts, constitution), encoding="utf-8")
    return facts


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
