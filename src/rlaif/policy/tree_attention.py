"""Attention for flat micro-batches: every completion sees its prompt and itself; a prompt's keys are computed once for all of them.

Registered with transformers as the attention implementation `rlaif_tree`; the plan travels as the keyword argument `tree`. Without a plan
it is transformers' own `sdpa`, so a model set to it can be used for anything else. No mask over flat x flat tokens is ever built: prompts
attend causally among themselves, [P, S, S], and completions to [prompt, self], [B, T, S + T].

The two can also be passed through the model one after the other, so that prompts leave nothing to differentiate: a plan of stage `prompts`
keeps each layer's keys and values, and one of stage `completions` takes them from there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlaif.policy.packing import TreePlan

NAME = "rlaif_tree"

FLAT_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3", "starcoder2", "gpt2", "gpt_bigcode", "roberta"})
"""Model types whose attention goes through transformers' interface; the tests compare each with its padded path."""


def use_tree_attention(model: Any) -> None:
    """Set the model's attention to `rlaif_tree` if its family is known to honour it."""
    if model.config.model_type in FLAT_MODELS:
        model.config._attn_implementation = NAME


def no_mask(device: torch.device) -> Tensor:
    """What to pass as `attention_mask` along with a plan: transformers takes a 4D mask as it is and builds none of its own."""
    return torch.empty(1, 1, 1, 1, device=device)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree: TreePlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, N, size], key and value [1, kv heads, N, size] of a flat micro-batch; returns [1, N, heads, size].

    Heads that share keys (grouped-query attention) are laid out as further query positions, so keys are not repeated for them.
    """
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if query.device.type != "cpu":
        return _attend(module, query, key, value, scaling, tree)[None], None
    # the bf16 kernel's backward pass takes twice the float32 one's time on CPU, and autocast would choose it
    with torch.autocast("cpu", enabled=False):
        return _attend(module, query.float(), key.float(), value.float(), scaling, tree)[None], None


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, tree: TreePlan) -> Tensor:
    heads, kv_heads = query.shape[1], key.shape[1]
    repeats = heads // kv_heads
    q_NHD, k_NHD, v_NHD = (x[0].transpose(0, 1) for x in (query, key, value))
    B, T = tree.completion_BT.shape

    def split(x_NHD: Tensor, index: Tensor) -> Tensor:
        # index_select, because its backward pass adds whole rows where that of x[index] sorts the index first
        return x_NHD.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)  # [rows, heads, tokens, size]

    attend = nn.functional.scaled_dot_product_attention
    outputs = []
    if tree.stage == "completions":
        k_P, v_P = tree.prompt_memory[module]
    else:
        # right padding needs no mask of its own: a causal query never looks past itself
        q_P, k_P, v_P = (split(x, tree.prompt_PS) for x in (q_NHD, k_NHD, v_NHD))
        outputs.append(attend(q_P, _repeat(k_P, repeats), _repeat(v_P, repeats), is_causal=True, scale=scaling))
    if tree.stage == "prompts":
        tree.prompt_memory[module] = (k_P, v_P)
    else:
        q_B, k_B, v_B = (split(x, tree.completion_BT) for x in (q_NHD, k_NHD, v_NHD))
        k_B, v_B = (torch.cat([x_P.index_select(0, tree.parent_B), x_B], dim=2) for x_P, x_B in ((k_P, k_B), (v_P, v_B)))
        if repeats > 1:
            q_B = q_B.reshape(B, kv_heads, repeats * T, -1)
        bias = tree.bias(repeats, q_B.dtype)
        outputs.append(attend(q_B, k_B, v_B, attn_mask=bias, scale=scaling).reshape(B, heads, T, -1))
    flat = torch.cat([x.transpose(1, 2).reshape(-1, heads, x.shape[-1]) for x in outputs])
    return flat.index_select(0, tree.unpad_N)


def _repeat(x_PHSD: Tensor, repeats: int) -> Tensor:
    return x_PHSD if repeats == 1 else x_PHSD.repeat_interleave(repeats, dim=1)


ALL_ATTENTION_FUNCTIONS.register(NAME, tree_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
