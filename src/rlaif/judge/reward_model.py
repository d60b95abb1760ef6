"""A reward model: a language model's body with one scalar read at the last token, and the judge made of it.

It reads what the other judges read, the task and the sanitised program, so comments and praise cannot buy it. Its folder is plain Hugging
Face (`AutoModelForSequenceClassification`, one label, with its tokenizer), plus `reward_model.json`: the calibration that turns a reward into
a belief (a sigmoid: Platt's slope and offset) and the figures of its training. Trained by `rlaif prefer reward-model`.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlaif.config import Device, Dtype, JudgeConfig
from rlaif.errors import JudgeUnavailable, ModelNotFound, RunFailed, UsageError
from rlaif.judge.calibrate import IDENTITY, Calibration
from rlaif.judge.local import chat_frame
from rlaif.judge.prompts import problem_text
from rlaif.judge.protocol import JudgeItem, failed_report, refused_report
from rlaif.judge.sanitise import Refusal, Sanitised, escape_special, sanitise
from rlaif.policy.model import fast_bf16, resolve_device
from rlaif.policy.weights import resolve_weights
from rlaif.types import JudgeReport, Problem

CARD = "reward_model.json"
FOLDER = "reward_model"
"""Where a run keeps it. Not `model/`: that name means a model that writes code."""
RUBRIC = "Python code and the task that it was written for."
_REMEMBERED = 20_000
_MICRO_BATCH_TOKENS = 4096


class RewardModel:
    """`model` is a transformers sequence-classification model of one label (or peft around one), `tokenizer` its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, *, compute_dtype: torch.dtype, max_tokens: int = 2048) -> None:
        self.model, self.tokenizer, self.compute_dtype = model, tokenizer, compute_dtype
        context = getattr(self.base.config, "max_position_embeddings", None) or 1 << 30
        self.max_tokens = min(max_tokens, context)
        self._special = tuple(token for token in map(str, getattr(tokenizer, "all_special_tokens", ())) if len(token) > 1)
        self._head, self._tail = chat_frame(tokenizer, RUBRIC)

    @property
    def base(self) -> Any:
        """The transformers model, with any adapter still inside it."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def ids(self, problem: Problem, code: str) -> list[int]:
        """Token ids of a task and a sanitised program. Only our own frame may hold special tokens."""
        task, program = problem_text(problem, self._special), escape_special(code.rstrip(), self._special)
        middle = self.tokenizer(f"Task:\n{task}\n\n{program}\n", add_special_tokens=False, split_special_tokens=True)["input_ids"]
        head, tail = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (self._head, self._tail))
        return head + middle + tail

    def rewards(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Rewards [B] of token rows, in float32, with gradients where they are on. The reward is read at each row's last token."""
        longest = max(map(len, rows))
        ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
        mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):  # padding on the right: positions need no care, and causal attention never sees it
            ids_BT[place, : len(row)] = torch.tensor(row)
            mask_BT[place, : len(row)] = 1
        last_B = mask_BT.sum(1) - 1
        device = self.device
        low = self.compute_dtype != torch.float32
        with torch.autocast(device.type, dtype=torch.bfloat16) if low else contextlib.nullcontext():
            hidden_BTD = self.base.base_model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False).last_hidden_state
        hidden_BD = hidden_BTD[torch.arange(len(rows), device=device), last_B.to(device)]
        return self.base.score(hidden_BD.float())[:, 0]

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Sequence[int]], micro_batch_tokens: int = _MICRO_BATCH_TOKENS) -> list[float]:
        """Rewards of many rows, in batches of similar length."""
        result = [0.0] * len(rows)
        for batch in batches_by_length(rows, micro_batch_tokens):
            for place, value in zip(batch, self.rewards([rows[place] for place in batch]).tolist(), strict=True):
                result[place] = value
        return result

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """Write a plain Hugging Face folder (an adapter merged into a copy, type of the original weights) and the card."""
        model = copy.deepcopy(self.model)
        model = model.merge_and_unload() if hasattr(model, "peft_config") else model
        stored = getattr(self.base, "_stored_dtype", torch.float32)
        try:
            model.to(stored).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunFailed(f"Cannot write the reward model to {folder}", str(error), "free some disk space, or another --output_dir") from error


def batches_by_length(rows: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Indices of the rows in batches of at most `tokens` tokens, padding included; a longer row is alone."""
    batches: list[list[int]] = []
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):
        if not batches or (len(batches[-1]) + 1) * len(rows[place]) > tokens:
            batches.append([])
        batches[-1].append(place)
    return batches


def load_classifier(
    name: str, *, dtype: Dtype = "auto", device: Device = "auto", trainable: bool = False, lora_rank: int = 0, lora_alpha: float = 32.0
) -> RewardModel:
    """The model of a name or a folder with a scalar head: the one stored with it, or a new one of zeros (every reward 0).

    Raises ModelNotFound, or UsageError for a family that transformers has no causal sequence classifier of.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    folder, where = resolve_weights(name), resolve_device(device)
    compute = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype) or (torch.bfloat16 if fast_bf16(where.type) else torch.float32)
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would announce the new head as a missing weight
    try:
        config = AutoConfig.from_pretrained(folder)
        new_head = not any("SequenceClassification" in name for name in config.architectures or ())
        stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        config.num_labels = 1
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        weights = torch.float32 if trainable else compute
        model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=weights)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        if "Unrecognized configuration class" in str(error):
            raise _no_head(folder, str(getattr(config, "model_type", "this family"))) from None
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelNotFound(f"Cannot load the model in {folder}", first, "give a folder written by save_pretrained") from error
    finally:
        logging.set_verbosity(verbosity)
    if config.is_encoder_decoder or not isinstance(getattr(model, "score", None), nn.Linear):
        raise _no_head(folder, config.model_type)
    model.score.to(torch.float32)
    if new_head:
        nn.init.zeros_(model.score.weight)
    model._stored_dtype = stored
    model.to(where).eval().requires_grad_(trainable)
    if lora_rank > 0:
        from peft import LoraConfig, TaskType, get_peft_model

        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=lora_rank, lora_alpha=lora_alpha, target_modules="all-linear"))
        model.eval()  # no dropout: a step must not depend on how it was cut
    return RewardModel(model, tokenizer, compute_dtype=compute)


def _no_head(folder: Path, family: str) -> UsageError:
    return UsageError(
        f"No reward model can be made of {folder}",
        f"transformers has no causal sequence classifier of the family '{family}'",
        "--model with a Llama, Qwen, GPT-2 or StarCoder2 model",
    )


class RewardModelJudge:
    """A trained reward model as a judge: belief = sigmoid(slope · reward + offset), fitted on held-out programs with known outcomes."""

    def __init__(self, reward_model: RewardModel, *, name: str, calibration: Calibration = IDENTITY) -> None:
        self.reward_model, self.name, self.calibration = reward_model, name, calibration
        self._memo: OrderedDict[tuple[int, ...], float] = OrderedDict()

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]:
        """One report per item, in order; code that no judge is asked about is refused."""
        shown = [sanitise(problem, code) for problem, code in items]
        rows: list[list[int] | None] = [
            self.reward_model.ids(item.problem, code.code) if isinstance(code, Sanitised) else None for item, code in zip(items, shown, strict=True)
        ]
        try:
            rewards = self._rewards(rows)
        except (RuntimeError, MemoryError) as error:  # nobody's verdict on any of them
            why = f"reward model failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            return [refused_report(code, self.name) if isinstance(code, Refusal) else failed_report(why, self.name) for code in shown]
        return [self._report(code, row, reward) for code, row, reward in zip(shown, rows, rewards, strict=True)]

    def _rewards(self, rows: Sequence[list[int] | None]) -> list[float | None]:
        fits = [tuple(row) if row is not None and len(row) <= self.reward_model.max_tokens else None for row in rows]
        missing = list(dict.fromkeys(row for row in fits if row is not None and row not in self._memo))
        self._memo |= dict(zip(missing, self.reward_model.score_rows(missing), strict=True)) if missing else {}
        result = [None if row is None else self._memo[row] for row in fits]
        while len(self._memo) > _REMEMBERED:
            self._memo.popitem(last=False)
        return result

    def _report(self, code: Sanitised | Refusal, row: list[int] | None, reward: float | None) -> JudgeReport:
        if isinstance(code, Refusal):
            return refused_report(code, self.name)
        if reward is None:
            why = f"{len(row or ())} tokens; the reward model reads at most {self.reward_model.max_tokens}"
            return refused_report(Refusal("overlong", why), self.name)
        belief = self.calibration.apply(squash(reward))
        return JudgeReport(belief, {}, (f"reward {reward:+.2f}", *code.notes), judge=self.name, prompt_tokens=len(row or ()))


def squash(reward: float) -> float:
    """A reward as a number in (0, 1), the form that `calibrate` fits on: the sigmoid."""
    return float(torch.sigmoid(torch.tensor(reward, dtype=torch.float64)))


def card_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder that holds the reward model (`folder`, or `reward_model/` in a run) and its card; raises JudgeUnavailable if there is none."""
    for place in (folder, folder / FOLDER):
        with contextlib.suppress(OSError, ValueError):
            return place, json.loads((place / CARD).read_text(encoding="utf-8"))
    raise JudgeUnavailable(f"{folder} holds no reward model", f"there is no {CARD} in it", "a folder written by `rlaif prefer reward-model`")


def load_reward_judge(config: JudgeConfig) -> RewardModelJudge:
    """The judge in `config.model`. Raises JudgeUnavailable for a folder without a reward model."""
    folder, card = card_of(Path(config.model or ""))
    try:
        reward_model = load_classifier(str(folder))
    except ModelNotFound as error:
        raise JudgeUnavailable(f"No reward model: {error.what}", error.why, error.try_next) from error
    stored = card.get("calibration") or asdict(IDENTITY)
    calibration = Calibration(stored["kind"], stored["slope"], stored["offset"], tuple(stored["x"]), tuple(stored["y"]))
    return RewardModelJudge(
        reward_model, name=f"reward_model:{folder.parent.name if folder.name == FOLDER else folder.name}", calibration=calibration
    )
