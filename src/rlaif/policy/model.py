"""The policy: a causal or encoder-decoder language model with its tokenizer, optional LoRA adapter and optional value head.

Master weights are float32; matrix products run in bfloat16 where that was measured to be faster (`fast_bf16`). Everything that becomes a
log-probability is computed in float32 (see head.py).
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlaif.config import Device, Dtype
from rlaif.errors import ModelNotFound, RunFailed, UsageError
from rlaif.policy import sharding
from rlaif.policy.memory import keep_freed_memory
from rlaif.policy.tree_attention import use_tree_attention
from rlaif.policy.weights import resolve_weights


@cache
def fast_bf16(device_type: str) -> bool:
    """Measure, do not assume: is a bf16 matrix product of a small model's shape at least 1.3 times as fast as a float32 one?

    On processors without AVX512-BF16 or AMX, bf16 is emulated and several times slower than float32.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device_type != "cpu":
        return False
    pairs = [(torch.randn(256, 576).to(dtype), torch.randn(1536, 576).to(dtype)) for dtype in (torch.bfloat16, torch.float32)]
    best = [math.inf, math.inf]
    # processor time of one thread, in turn, the best of many: on a busy machine the wall clock says more about the neighbours, and two threads
    # wait for one another
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(20):
                for side, (x, w) in enumerate(pairs):
                    start = time.thread_time()
                    torch.nn.functional.linear(x, w)
                    best[side] = min(best[side], time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return 1.3 * best[0] < best[1]


def resolve_device(device: Device) -> torch.device:
    """`auto` takes CUDA if there is one, else MPS, else the CPU; raises UsageError for a device that is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available[device]:
        raise UsageError(f"No {device} device on this machine", "", "--device cpu, or --device auto")
    return torch.device(device)


class Policy:
    """A model that writes code, and what training it needs. Built by `load_policy`."""

    def __init__(self, model: Any, tokenizer: Any, *, source: Path, compute_dtype: torch.dtype, value_head: nn.Linear | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.value_head = value_head
        self.source = source
        """Folder the weights came from: the reference of full-weight training is read from it again."""
        self.compute_dtype = compute_dtype
        self.stored_dtype = torch.float32
        """Type of the weights as they were on disk, and as `save` writes them."""
        self.config = self.base.config
        self.is_encoder_decoder: bool = bool(self.config.is_encoder_decoder)
        self.stop_token_ids = stop_token_ids(tokenizer, self.base)
        self._reference: Policy | None = None
        self._sampling_model: Any = None  # the sampler's own copies of the weights
        self._fused: Any = None
        self.shards: sharding.Shards | None = None
        """Where the weights are divided among processes; `run`, `save` and sampling are then things that all do together."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def is_lora(self) -> bool:
        return hasattr(self.model, "peft_config")

    @property
    def base(self) -> Any:
        """The transformers model, with any adapter still inside it."""
        return self.model.get_base_model() if self.is_lora else self.model

    @property
    def pad_token_id(self) -> int:
        """An id that is safe to embed in padded positions; masks, never this id, say what is padding."""
        for candidate in (self.tokenizer.pad_token_id, getattr(self.config, "pad_token_id", None), self.tokenizer.eos_token_id):
            if isinstance(candidate, int) and 0 <= candidate < self.config.vocab_size:
                return candidate
        return 0

    @property
    def first_position(self) -> int:
        """The position id of a sequence's first token: RoBERTa's embeddings start after its padding index."""
        return self.config.pad_token_id + 1 if self.config.model_type in {"roberta", "xlm-roberta", "camembert"} else 0

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Parameters of the model (adapter only, with LoRA) that learn; the value head's are not among them."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def run(self, compute: Callable[[], tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
        """`compute()`, in which the weights are at hand: those of a sharded model are gathered for it, layer by layer."""
        if self.shards is None:
            return compute()
        return sharding.run_gathered(self.shards, compute)

    def equal_turns(self, turns: int) -> int:
        """How often to call `run`: `turns`, or the largest of all processes if the weights are sharded."""
        if self.shards is None:
            return turns
        return sharding.equal_turns(turns, self.device)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Compute in `compute_dtype` over float32 master weights. Enter it per micro-batch: it caches casted weights until it is left."""
        if self.compute_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    @property
    def body(self) -> Any:
        """The transformer without its language-model head; its output has `last_hidden_state`."""
        return self.base.base_model if not self.is_encoder_decoder else _Seq2SeqBody(self.base)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V] of last hidden states."""
        if self.is_encoder_decoder and getattr(self.config, "scale_decoder_outputs", False):
            hidden_ND = hidden_ND * self.config.d_model**-0.5
        return self.base.lm_head(hidden_ND)

    @property
    def plain_head(self) -> nn.Linear | None:
        """The head if it is nothing but one matrix without a bias, for which log-probabilities have a faster path."""
        head = self.base.lm_head
        scaled = self.is_encoder_decoder and getattr(self.config, "scale_decoder_outputs", False)
        return head if type(head) is nn.Linear and head.bias is None and not scaled else None

    @property
    def vocabulary(self) -> int:
        return self.base.get_output_embeddings().weight.shape[0]

    @property
    def decoder_start_id(self) -> int:
        """Encoder-decoder models: what the decoder starts with."""
        start = self.config.decoder_start_token_id
        return start if start is not None else self.pad_token_id

    @contextlib.contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Recompute activations in the backward pass, if asked for at load time and gradients are on.

        transformers does it only in train mode, which would also switch dropout on, so the flag is raised on the layers alone.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        blocks = [m for m in self.base.modules() if isinstance(m, GradientCheckpointingLayer)] if torch.is_grad_enabled() else []
        layers = [block for block in blocks if block.gradient_checkpointing]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    @contextlib.contextmanager
    def reference(self) -> Iterator[Policy]:
        """The policy as it was before training, for `action_logps` under no_grad.

        LoRA: this policy with the adapter off (no memory). Full weights: a frozen copy in the compute type, read from `source` when first
        asked for, so that a resumed run gets the same one.
        """
        if self.is_lora:
            with self.model.disable_adapter():
                yield self
            return
        if self._reference is None:
            model = _load_model(self.source, self.compute_dtype).to(self.device).eval().requires_grad_(False)
            self._reference = Policy(model, self.tokenizer, source=self.source, compute_dtype=self.compute_dtype)
        yield self._reference

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write a plain Hugging Face folder (LoRA merged into a copy, type of the original weights) with the tokenizer.

        The value head is not part of it; checkpoints keep that. write: False for a process that only gives its shards.
        Raises RunFailed when the disk is full.
        """
        model = self.base
        if self.shards is not None:
            from rlaif.policy.decoders import whole_model

            model = whole_model(self, self.stored_dtype)
        elif write and (self.is_lora or self.stored_dtype != next(model.parameters()).dtype):
            model = copy.deepcopy(self.model)
            model = (model.merge_and_unload() if self.is_lora else model).to(self.stored_dtype)
        if not write:
            return
        try:
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        except OSError as error:
            raise RunFailed(f"Cannot write the model to {folder}", str(error), "free some disk space, or choose another --output-dir") from error


class _Seq2SeqBody:
    """An encoder-decoder model's stacks without the head."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **decoder: Any) -> Any:
        encoded = self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
        decoder = {key.removeprefix("decoder_"): value for key, value in decoder.items()}
        return self.model.get_decoder()(**decoder, encoder_hidden_states=encoded.last_hidden_state, encoder_attention_mask=attention_mask)


def stop_token_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """End-of-sequence ids of the tokenizer and of the generation config, and nothing else."""
    ids: set[int] = set()
    for value in (
        tokenizer.eos_token_id,
        model.config.eos_token_id,
        getattr(model, "generation_config", None) and model.generation_config.eos_token_id,
    ):
        ids.update(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    return frozenset(ids)


def load_policy(
    name_or_path: str | Path,
    *,
    dtype: Dtype = "auto",
    device: Device = "auto",
    lora_rank: int = 0,
    lora_alpha: float = 32.0,
    value_head: bool = False,
    gradient_checkpointing: bool = False,
    trainable: bool = True,
    offline: bool = False,
    sharded: bool = False,
) -> Policy:
    """Load a model by name or folder (see `resolve_weights`).

    dtype: compute type; `auto` is bfloat16 where that was measured to be faster. Master weights are float32 when `trainable`, else they are
    held in the compute type. sharded: divided among the processes of the run, which must all load it. Raises ModelNotFound, UsageError.
    """
    folder = resolve_weights(str(name_or_path), offline=offline)
    keep_freed_memory()
    where = resolve_device(device)
    compute = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype) or (torch.bfloat16 if fast_bf16(where.type) else torch.float32)
    model = _load_model(folder, torch.float32 if trainable else compute)
    stored = model._stored_dtype
    tokenizer = load_tokenizer(folder)
    if not sharded:
        model.to(where)
    if not trainable:
        model.requires_grad_(False)
    if gradient_checkpointing and trainable:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora_rank > 0:
        model = _with_lora(model, lora_rank, lora_alpha)
    head = None
    if value_head:
        head = nn.Linear(_hidden_size(model.config), 1, dtype=torch.float32, device=where)
        nn.init.zeros_(head.weight)  # a value of 0 everywhere: the first advantages are the rewards themselves
        nn.init.zeros_(head.bias)
    # always in eval mode: dropout would make the sampler's and the trainer's probabilities differ
    policy = Policy(model.eval(), tokenizer, source=folder, compute_dtype=compute, value_head=head)
    policy.stored_dtype = stored
    if sharded:
        policy.shards = sharding.shard(policy.model, policy.base, where)
    return policy


def _hidden_size(config: Any) -> int:
    return getattr(config, "hidden_size", None) or getattr(config, "n_embd", None) or config.d_model


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, OSError, KeyError) as error:
        raise ModelNotFound(f"Cannot read the model in {folder}", str(error).splitlines()[0], "give a folder written by save_pretrained") from error
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    if config.model_type in {"bert", "roberta", "xlm-roberta", "camembert", "electra"} and not config.is_decoder:
        warnings.warn(
            f"{folder.name or folder} ({config.model_type}) is an encoder, not made to generate; as a decoder it must learn everything anew",
            stacklevel=3,
        )
        config.is_decoder = True
    try:
        model = kind.from_pretrained(folder, config=config, dtype=dtype)
    except SafetensorError as error:
        raise ModelNotFound(
            f"Cannot load the model in {folder}", f"a file of weights is broken or was cut off: {error}", "fetch or copy it again"
        ) from error
    except (ValueError, OSError) as error:
        raise ModelNotFound(
            f"Cannot load the model in {folder}", str(error).splitlines()[0], "RLAIF trains causal and encoder-decoder language models"
        ) from error
    model._stored_dtype = stored
    use_tree_attention(model)
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer beside a model. Raises ModelNotFound."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise ModelNotFound(f"No tokenizer in {folder}", str(error).splitlines()[0], "save the tokenizer beside the model") from error


def _with_lora(model: Any, rank: int, alpha: float) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    task = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")  # GPT-2's Conv1D: peft sets it right by itself
        return get_peft_model(model, LoraConfig(task_type=task, r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear"))
