"""The sampler's forward passes: rows in slots, each slot with its own stretch of a cache that is allocated once.

`HFDecoder` runs any decoder-only transformers model through a `Cache` of slots; `EncoderDecoderDecoder` runs T5 and its kin the plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache

from rlaif.policy.model import Policy
from rlaif.policy.sharding import each_gathered
from rlaif.policy.trace import Trace

CACHE_BYTES = 3 * 2**29
"""Rows in flight are limited so that the cache stays below this."""


class Decoder(Protocol):
    """Slots 0..n-1 are in use, in the order in which rows were admitted and moved."""

    rows: int
    """Slots there are."""

    def room(self, group_size: int) -> int:
        """How many more prompts of `group_size` rows each could be admitted now."""
        ...

    def admit(self, prompts: Sequence[list[int]], group_size: int) -> Tensor:
        """Prefill prompts into the next `len(prompts) * group_size` slots, a group side by side; logits after each prompt, [P, V]."""
        ...

    def step(self, token_ids: list[int]) -> Tensor:
        """Append one token to every slot in use; the logits after it, [R, V]."""
        ...

    def move(self, sources: list[int], targets: list[int], left: int) -> None:
        """Copy rows between slots, then keep the first `left`."""
        ...


def make_decoder(
    policy: Policy, prompt_tokens: int, new_tokens: int, group_size: int, rows_in_flight: int | None, total_rows: int, trace: Trace | None = None
) -> Decoder:
    """The fastest decoder that knows this model. `prompt_tokens`, `new_tokens`: the longest there will be."""
    from rlaif.policy.fused import FusedDecoder, can_fuse

    wanted = max(group_size, min(total_rows, rows_in_flight or (512 if policy.device.type == "cuda" else 64)))
    if policy.is_encoder_decoder:
        return EncoderDecoderDecoder(policy, wanted)
    fused = can_fuse(policy)
    config = policy.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row_bytes = 2 * config.num_hidden_layers * heads * head_dim * (prompt_tokens + new_tokens) * (4 if fused else policy.compute_dtype.itemsize)
    rows = max(group_size, min(wanted, CACHE_BYTES // row_bytes))
    if fused:
        return FusedDecoder(policy, rows, prompt_tokens, new_tokens, group_size, trace)
    return HFDecoder(policy, rows, prompt_tokens + new_tokens)


def sampling_model(policy: Policy) -> Any:
    """The model to sample with: the policy's own where it already computes in its stored type, else a copy in the compute type.

    The copy is made once and refreshed in place from the float32 master weights (LoRA: merged on the way).
    """
    if next(policy.base.parameters()).dtype == policy.compute_dtype and policy.shards is None:
        return policy.model
    if policy._sampling_model is None:
        policy._sampling_model = _empty_copy(policy, policy.compute_dtype, policy.device)
    refresh(policy._sampling_model, policy)
    return policy._sampling_model


def whole_model(policy: Policy, dtype: torch.dtype) -> Any:
    """A plain copy of the model on the CPU, LoRA merged and shards gathered."""
    model = _empty_copy(policy, dtype, torch.device("cpu"))
    refresh(model, policy)
    model.generation_config = policy.base.generation_config
    return model


def _empty_copy(policy: Policy, dtype: torch.dtype, device: torch.device) -> Any:
    with torch.device("meta"):
        model = type(policy.base)(policy.config)
    model = model.to(dtype).to_empty(device=device)
    # buffers (rotary frequencies, causal tables) are not in the state dict: take the policy's own
    for name, buffer in policy.base.named_buffers():
        name = name.replace(".base_layer", "")
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer.detach().to(device, copy=True))
    model.tie_weights()
    return model.eval().requires_grad_(False)


def merged_weights(policy: Policy, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters by their plain names, float32, with LoRA's product added where there is one: W + scale * B A.

    Of a sharded policy, copies that were gathered layer by layer, the layers' matrices in `dtype`, for which they are wanted; all must call it.
    """
    if policy.shards is None:
        return _merged(policy.base)
    weights: dict[str, Tensor] = {}
    for prefix, module in each_gathered(policy.shards, policy.base):
        for name, tensor in _merged(module).items():
            narrow = prefix and tensor.ndim == 2
            weights[f"{prefix}.{name}" if prefix else name] = tensor.to(dtype if narrow else tensor.dtype, copy=True)
    return weights


def _merged(part: nn.Module) -> dict[str, Tensor]:
    """Those of one module and what is in it; a layer that is not gathered now is left out."""
    weights: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    for name, module in part.named_modules():
        if hasattr(module, "get_delta_weight") and "default" in module.lora_A and not isinstance(module.weight, DTensor):
            deltas[name + ".weight"] = module.get_delta_weight("default").detach()
    for name, parameter in part.named_parameters():
        if ".lora_" in name or isinstance(parameter, DTensor):
            continue
        plain = name.replace(".base_layer", "")
        weights[plain] = parameter.detach() + deltas[plain] if plain in deltas else parameter.detach()
    return weights


@torch.no_grad()
def refresh(model: Any, policy: Policy) -> None:
    """Copy the policy's current weights into `model`, in place."""
    weights = merged_weights(policy, model.dtype)
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values: [slots, heads, tokens, head size], written at each row's own length."""

    is_sliding = False
    is_compileable = False

    def __init__(self, state: SlotCache) -> None:
        super().__init__()
        self.state = state
        self.keys: Any = None  # tensors from the first call of lazy_initialization on
        self.values: Any = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, tokens = self.state.rows, self.state.tokens
        self.keys = key_states.new_zeros(rows, key_states.shape[1], tokens, key_states.shape[-1])
        self.values = value_states.new_zeros(rows, value_states.shape[1], tokens, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows, state = key_states.shape[0], self.state
        index_R, length_R = state.row_index[:rows], state.length_R[:rows]
        self.keys[index_R, :, length_R] = key_states[:, :, 0]
        self.values[index_R, :, length_R] = value_states[:, :, 0]
        return self.keys[:rows, :, : state.longest], self.values[:rows, :, : state.longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.state.longest, 0

    def get_seq_length(self) -> int:
        return self.state.longest - 1

    def get_max_length(self) -> int:
        return self.state.tokens


class SlotCache(Cache):
    """Keys and values of rows in slots, for all layers. `longest` includes the token now being added."""

    def __init__(self, layers: int, rows: int, tokens: int, device: torch.device) -> None:
        self.rows, self.tokens, self.longest = rows, tokens, 0
        self.length_R = torch.zeros(rows, dtype=torch.long, device=device)
        self.row_index = torch.arange(rows, device=device)
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    def fill(self, prefill: Any, slots: slice, group_size: int) -> None:
        """Copy prefilled prompts, [P, heads, tokens, size], into slots, each to the whole of its group."""
        layers: Any = self.layers
        for layer, filled in zip(layers, prefill.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(filled.keys, filled.values)
            tokens = filled.keys.shape[2]
            layer.keys[slots, :, :tokens] = filled.keys.repeat_interleave(group_size, dim=0)
            layer.values[slots, :, :tokens] = filled.values.repeat_interleave(group_size, dim=0)


class HFDecoder:
    """Any decoder-only transformers model. The prompt's keys are computed once and copied to each row of its group."""

    def __init__(self, policy: Policy, rows: int, tokens: int) -> None:
        self.policy, self.rows, self.active = policy, rows, 0
        self.model = sampling_model(policy)
        self.cache: Any = SlotCache(policy.config.num_hidden_layers, rows, tokens, policy.device)
        self.lengths: list[int] = []

    def room(self, group_size: int) -> int:
        return (self.rows - self.active) // group_size

    def admit(self, prompts: Sequence[list[int]], group_size: int) -> Tensor:
        device, policy = self.policy.device, self.policy
        length_P = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = int(length_P.max())
        ids_PT = torch.tensor([prompt + [policy.pad_token_id] * (longest - len(prompt)) for prompt in prompts], device=device)
        position_PT = torch.arange(longest, device=device).expand_as(ids_PT)
        real_PT = position_PT < length_P[:, None]
        prefill = DynamicCache(config=policy.config)
        output = self.model(
            input_ids=ids_PT,
            attention_mask=real_PT.long(),
            position_ids=position_PT + policy.first_position,
            past_key_values=prefill,
            use_cache=True,
            # each prompt's last token only; prompts differ in length, so ask for all the distinct ends there are
            **({"logits_to_keep": length_P.unique() - 1}),
        )
        column_P = torch.searchsorted(length_P.unique(), length_P)
        logits_PV = output.logits[torch.arange(len(prompts), device=device), column_P]
        slots = slice(self.active, self.active + len(prompts) * group_size)
        self.cache.fill(prefill, slots, group_size)
        self.cache.length_R[slots] = length_P.repeat_interleave(group_size)
        self.lengths += [len(prompt) for prompt in prompts for _ in range(group_size)]
        self.active = slots.stop
        return logits_PV

    def step(self, token_ids: list[int]) -> Tensor:
        rows, cache = self.active, self.cache
        cache.longest = max(self.lengths) + 1
        length_R = cache.length_R[:rows]
        visible_RT = torch.arange(cache.longest, device=length_R.device) <= length_R[:, None]
        dtype = self.model.dtype
        mask_R11T = torch.zeros(rows, 1, 1, cache.longest, dtype=dtype, device=length_R.device).masked_fill_(
            ~visible_RT[:, None, None], torch.finfo(dtype).min
        )
        output = self.model(
            input_ids=torch.tensor(token_ids, device=length_R.device)[:, None],
            attention_mask=mask_R11T,
            position_ids=length_R[:, None] + self.policy.first_position,
            past_key_values=cache,
            use_cache=True,
        )
        cache.length_R[:rows] += 1
        self.lengths = [length + 1 for length in self.lengths]
        return output.logits[:, -1]

    def move(self, sources: list[int], targets: list[int], left: int) -> None:
        if sources:
            for layer in self.cache.layers:
                layer.keys[targets] = layer.keys[sources]
                layer.values[targets] = layer.values[sources]
            self.cache.length_R[targets] = self.cache.length_R[sources]
            for source, target in zip(sources, targets, strict=True):
                self.lengths[target] = self.lengths[source]
        del self.lengths[left:]
        self.active = left


class EncoderDecoderDecoder:
    """T5 and its kin, the plain way: prompts encoded once per group, decoder caches as transformers keeps them, rows of one length."""

    def __init__(self, policy: Policy, rows: int) -> None:
        self.policy, self.rows = policy, rows
        self.model = sampling_model(policy)
        self.cache: Any = None
        self.encoded_RSD = self.mask_RS = torch.empty(0)

    def room(self, group_size: int) -> int:
        """Rows must be of one length, so new ones come only when all old ones have left."""
        return 0 if len(self.encoded_RSD) else self.rows // group_size

    def admit(self, prompts: Sequence[list[int]], group_size: int) -> Tensor:
        device, pad = self.policy.device, self.policy.pad_token_id
        longest = max(map(len, prompts))
        ids_PS = torch.tensor([prompt + [pad] * (longest - len(prompt)) for prompt in prompts], device=device)
        mask_PS = torch.tensor([[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts], device=device)
        encoded_PSD = self.model.get_encoder()(input_ids=ids_PS, attention_mask=mask_PS).last_hidden_state
        self.encoded_RSD, self.mask_RS = encoded_PSD.repeat_interleave(group_size, 0), mask_PS.repeat_interleave(group_size, 0)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        return self.step([self.policy.decoder_start_id] * len(self.encoded_RSD))[::group_size]

    def step(self, token_ids: list[int]) -> Tensor:
        output = self.model(
            encoder_outputs=(self.encoded_RSD,),
            attention_mask=self.mask_RS,
            decoder_input_ids=torch.tensor(token_ids, device=self.policy.device)[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1]

    def move(self, sources: list[int], targets: list[int], left: int) -> None:
        order = list(range(len(self.encoded_RSD)))
        for source, target in zip(sources, targets, strict=True):
            order[target] = source
        index_R = torch.tensor(order[:left], dtype=torch.long, device=self.policy.device)
        if left:
            self.cache.batch_select_indices(index_R)
        self.encoded_RSD, self.mask_RS = self.encoded_RSD[index_R], self.mask_RS[index_R]
