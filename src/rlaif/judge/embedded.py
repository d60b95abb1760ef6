"""Loading of judges that run on this machine: the embedded one (shipped adapter on the small base model) and any local model.

The embedded judge keeps no second copy of the base in memory where it can help it: if the training policy is a LoRA on the same base
weights, the judge's adapter is put beside the policy's and switched in around each forward pass. A policy whose full weights are trained
is no base any more, so there the judge loads its own frozen copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlaif.config import JudgeConfig
from rlaif.errors import JudgeUnavailable, ModelNotFound
from rlaif.judge.calibrate import IDENTITY, Calibration
from rlaif.judge.constitution import BASE_MODEL, BELIEF, Constitution
from rlaif.judge.local import LocalJudge
from rlaif.policy.fused import can_fuse
from rlaif.policy.model import Policy, load_policy
from rlaif.policy.reader import Reader

SHIPPED = Path(__file__).parent / "embedded"
"""Folder of the shipped adapter: adapter_config.json, adapter_model.safetensors, calibration.json, judge.json, README.md (its card)."""
ADAPTER_NAME = "judge"


def load_embedded_judge(config: JudgeConfig, constitution: Constitution, *, policy: Any = None, secret: bytes | None = None) -> LocalJudge:
    """The default judge. Without a shipped adapter for these very base weights it is the zero-shot base model, uncalibrated, and its name says so."""
    adapter = SHIPPED if (SHIPPED / "adapter_config.json").is_file() else None
    base = base_of(adapter) if adapter else BASE_MODEL
    shared = policy is not None and _is_lora_on(policy, base)
    model = policy if shared else _load(base, None)
    if adapter is None or fingerprint(model.base) != _card(adapter).get("base_fingerprint"):
        why = "" if adapter is None else ", its adapter being for another base"
        return _judge(f"embedded (zero-shot base model{why}, uncalibrated)", model, None, config, constitution, secret)
    if not shared:
        _add_adapter(model, adapter)
    return _judge("embedded", model, adapter, config, constitution, secret)


def load_local_judge(config: JudgeConfig, constitution: Constitution, *, secret: bytes | None = None) -> LocalJudge:
    """Any causal LM, zero-shot or with an adapter folder written by `rlaif judge train`."""
    name = config.model or (base_of(config.adapter) if config.adapter else BASE_MODEL)
    label = f"local:{name}" + (f"+{config.adapter.name}" if config.adapter else " (zero-shot, uncalibrated)")
    return _judge(label, _load(name, config.adapter), config.adapter, config, constitution, secret, all_principles=True)


def base_of(adapter: Path) -> str:
    """The base model an adapter folder was trained on; raises JudgeUnavailable if the folder is no adapter."""
    try:
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JudgeUnavailable(f"{adapter} is no judge adapter", str(error), "a folder written by `rlaif judge train`") from None
    return str(_card(adapter).get("base") or settings.get("base_model_name_or_path") or BASE_MODEL)


def fingerprint(model: Any) -> str:
    """Tells base models apart by what they are, not by their name: a hash of some embedding rows in bfloat16."""
    import torch

    rows = model.get_input_embeddings().weight.detach()
    sample = rows[:: max(1, rows.shape[0] // 64)].to("cpu", torch.bfloat16).contiguous()
    return hashlib.sha256(sample.view(torch.int16).numpy().tobytes()).hexdigest()[:16]


def _card(adapter: Path) -> dict[str, Any]:
    path = adapter / "judge.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _is_lora_on(policy: Any, name: str) -> bool:
    """A LoRA policy whose frozen base is the one that `name` means."""
    if not getattr(policy, "is_lora", False):
        return False
    from rlaif.policy.weights import resolve_weights

    try:
        return Path(policy.source).resolve() == resolve_weights(name, offline=True).resolve()
    except ModelNotFound:
        return False


def _load(name: str, adapter: Path | None) -> Policy:
    """A frozen policy object in the compute type (bf16 where it is fast, so 0.27 GB for the embedded base)."""
    try:
        policy = load_policy(name, trainable=False)
    except ModelNotFound as error:
        raise JudgeUnavailable(f"No judge model: {error.what}", error.why, error.try_next) from error
    if policy.is_encoder_decoder:
        raise JudgeUnavailable(f"{name} cannot judge", "the local judge needs a causal language model", "another --judge.model")
    policy.model.to(policy.compute_dtype)
    if adapter is not None:
        _add_adapter(policy, adapter)
    return policy


def _add_adapter(policy: Policy, adapter: Path) -> None:
    """Put a judge's adapter on a frozen policy, into its weights: beside them, its many small products are a fifth of the time."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(policy.model, str(adapter), adapter_name=ADAPTER_NAME).to(policy.compute_dtype)
    policy.model = adapted.merge_and_unload()
    policy.model.eval().requires_grad_(False)


def _judge(
    name: str,
    policy: Any,
    adapter: Path | None,
    config: JudgeConfig,
    constitution: Constitution,
    secret: bytes | None,
    *,
    all_principles: bool = False,
) -> LocalJudge:
    calibration = IDENTITY
    if adapter is not None and (adapter / "calibration.json").is_file():
        calibration = Calibration.load(adapter / "calibration.json")
    principles: Sequence[str] | None = None if all_principles else (BELIEF,)
    if adapter is not None:  # an adapter is asked what it was trained on: it has never seen another rubric
        principles = _card(adapter).get("principles", (BELIEF,))
        if _card(adapter).get("constitution") not in (None, constitution.fingerprint()):
            name += " (trained on another constitution)"
    # Our own frozen copy runs as it is; a policy in training is switched to the judge's adapter (or to none) around each pass.
    own = not any(parameter.requires_grad for parameter in policy.model.parameters())
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext if own else shared_base(policy, adapter)
    return LocalJudge(
        policy.model,
        policy.tokenizer,
        constitution,
        name=name,
        principles=principles,
        calibration=calibration,
        batch_size=config.batch_size,
        secret=secret,
        context=context,
        reader=Reader(policy) if own and policy.device.type == "cpu" and can_fuse(policy) else None,
    )


def shared_base(policy: Any, adapter: Path | None) -> Callable[[], contextlib.AbstractContextManager]:
    """A context in which the LoRA policy's model is the judge: its own adapter off, the judge's (if any) on, everything restored after."""
    if adapter is not None and ADAPTER_NAME not in policy.model.peft_config:
        trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        policy.model.load_adapter(str(adapter), adapter_name=ADAPTER_NAME, is_trainable=False)
        for parameter in policy.model.parameters():
            parameter.requires_grad_(any(parameter is kept for kept in trained))

    @contextlib.contextmanager
    def judging() -> Iterator[None]:
        model = policy.model
        training = model.training
        active = model.active_adapter
        flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        model.eval()
        try:
            with policy.autocast():
                if adapter is None:
                    with model.disable_adapter():
                        yield
                else:
                    model.set_adapter(ADAPTER_NAME)
                    yield
        finally:
            if adapter is not None:
                model.set_adapter(active)
            for parameter, flag in flags:  # set_adapter turns gradients on and off as it likes
                parameter.requires_grad_(flag)
            model.train(training)

    return judging
