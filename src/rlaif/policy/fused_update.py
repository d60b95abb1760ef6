"""The update's own way through the layers of the Llama family, on a processor: the same sums as the transformers module, in fewer passes over memory.

A layer is two functions with attention between them, each with its backward pass written out:

    hidden -> norm, one product for queries, keys and values, rotation -> rows as attention wants them      (`_Before`)
    attention's output -> flat again, output product, residual, norm, gated MLP, residual                   (`_After`)

What that saves, beside autograd over the module: projections that share an input are one product, in both directions; a tensor is cast once,
not once for each product that reads it; moving rows between the flat layout and attention's padded ones is a gather in both directions (a row's
place is known, so nothing has to be added up row by row); and heads that share keys are laid out as query positions by that same gather.

Where sampling has left the products' outputs (trace.py), the forward pass does only what lies between them.

Master weights and the residual stream are float32, products run in the compute type, scores, softmax and norms in float32, as under autocast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from rlaif.policy.fused import can_fuse, head_size, rotations
from rlaif.policy.kept_attention import attend
from rlaif.policy.linear import product
from rlaif.policy.model import Policy
from rlaif.policy.packing import TreePlan
from rlaif.policy.trace import Products, Trace


def can_fuse_update(policy: Policy) -> bool:
    """True where `flat_hidden` is the model: on a processor, whole and trainable or frozen weights, activations kept."""
    plain = not policy.is_lora and policy.shards is None and policy.device.type == "cpu"
    return plain and can_fuse(policy) and not any(getattr(layer, "gradient_checkpointing", False) for layer in policy.base.model.layers)


def flat_hidden(policy: Policy, input_ids_N: Tensor, position_N: Tensor, tree: TreePlan, traced: tuple[Trace, Tensor] | None = None) -> Tensor:
    """Hidden states of a flat micro-batch, or of the part of it that `tree` is at, after the last norm: [N, D], float32, differentiable.

    traced: a trace of these tokens under these weights, and their places in it, [N]; the products' outputs are then taken from there.
    """
    model, config = policy.base.model, policy.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = head_size(config)
    places = _places(tree, len(input_ids_N), heads, kv_heads, size)
    hidden_ND = torch.nn.functional.embedding(input_ids_N, model.embed_tokens.weight).float()
    how = _How(policy.compute_dtype, config.rms_norm_eps, places, rotations(model.rotary_emb, hidden_ND, position_N))
    for index, layer in enumerate(model.layers):
        made = None if traced is None else traced[0].take(index, traced[1])
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        head_norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        q_P, k_P, v_P, q_B, k_B, v_B = _Before.apply(
            how,
            None if made is None else made.qkv,
            hidden_ND,
            layer.input_layernorm.weight,
            *(projection.weight for projection in projections),
            *(projection.bias for projection in projections),
            *(None if norm is None else norm.weight for norm in head_norms),
        )
        if tree.stage == "prompts":
            tree.prompt_memory[attention] = (k_P, v_P)
        elif tree.stage == "completions":
            prompts = tree.prompt_memory[attention]
            k_B, v_B = (torch.cat([x_P.index_select(0, tree.parent_B), x_B], dim=2) for x_P, x_B in zip(prompts, (k_B, v_B), strict=True))
        out_P = attend(q_P, k_P, v_P, places.prompt_bias, attention.scaling, how.dtype)
        out_B = attend(q_B, k_B, v_B, places.completion_bias, attention.scaling, how.dtype)
        hidden_ND = _After.apply(
            how,
            made,
            hidden_ND,
            out_P,
            out_B,
            attention.o_proj.weight,
            layer.post_attention_layernorm.weight,
            mlp.gate_proj.weight,
            mlp.up_proj.weight,
            mlp.down_proj.weight,
        )
    return model.norm(hidden_ND)


# -- where a flat row stands in attention's layouts ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Places:
    """Rows of the flat layout are counted as token * kv heads + kv head: one holds a token's key of that head, or all queries that use it.

    prompt_rows [P, h, S], completion_rows [B, h, T], key_rows [B, h, S + T] (or [B, h, T], where the prompts went first): the flat row at each place
    of the padded layouts, `nobody` (one past the last) at padding. prompt_at, completion_at, own_key_at: for the flat rows of prompts, and of
    completions, their place in those layouts. members: completions of each prompt, where both go together.
    """

    heads: int
    kv_heads: int
    size: int
    nobody: int
    members: list[int]
    prompt_rows: Tensor
    completion_rows: Tensor
    key_rows: Tensor
    prompt_at: Tensor
    completion_at: Tensor
    own_key_at: Tensor
    prompt_bias: Tensor
    completion_bias: Tensor


def _places(tree: TreePlan, tokens: int, heads: int, kv_heads: int, size: int) -> _Places:
    device = tree.unpad_N.device
    repeats = heads // kv_heads
    prompt_PS = tree.prompt_PS[:0] if tree.stage == "completions" else tree.prompt_PS
    completion_BT = tree.completion_BT[:0] if tree.stage == "prompts" else tree.completion_BT
    S, T = prompt_PS.shape[1], completion_BT.shape[1]
    in_prompts = int((tree.unpad_N < prompt_PS.numel()).sum())
    prompt_N, completion_N = tree.unpad_N[:in_prompts], tree.unpad_N[in_prompts:] - prompt_PS.numel()
    head_h = torch.arange(kv_heads, device=device)

    def rows(flat_RL: Tensor, real_at_N: Tensor) -> Tensor:
        """Flat positions [R, L] to flat rows [R, h, L]."""
        real_RL = torch.zeros(flat_RL.numel(), dtype=torch.bool, device=device).index_fill_(0, real_at_N, True).view_as(flat_RL)
        return torch.where(real_RL[:, None], flat_RL[:, None] * kv_heads + head_h[:, None], tokens * kv_heads)

    def at(place_N: Tensor, length: int, offset: int, total: int) -> Tensor:
        """Places in [R, length] to places of all heads in [R, h, total], rows of `length` beginning at `offset`."""
        row_N, column_N = place_N // length, place_N % length
        return ((row_N[:, None] * kv_heads + head_h) * total + offset + column_N[:, None]).flatten()

    prompt_rows, completion_rows = rows(prompt_PS, prompt_N), rows(completion_BT, completion_N)
    at_once = tree.stage == "all"  # else a completion's keys are its own, and its prompt's are in the plan's memory
    before = S if at_once else 0
    causal_SS = torch.ones(S, S, dtype=torch.bool, device=device).tril()

    def bias(visible: Tensor) -> Tensor:
        """For queries in order of (token, head of the group)."""
        hidden = torch.zeros(visible.shape, device=device).masked_fill_(~visible, torch.finfo(torch.float32).min)
        return hidden.repeat_interleave(repeats, dim=-2)

    return _Places(
        heads,
        kv_heads,
        size,
        tokens * kv_heads,
        tree.parent_B.bincount().tolist() if at_once else [],
        prompt_rows,
        completion_rows,
        torch.cat([prompt_rows.index_select(0, tree.parent_B), completion_rows], dim=-1) if at_once else completion_rows,
        at(prompt_N, S, 0, S),
        at(completion_N, T, 0, T),
        at(completion_N, T, before, before + T),
        bias(causal_SS)[None, None],
        bias(tree.visible_BTK)[:, None],
    )


@dataclass(frozen=True, slots=True)
class _How:
    """What all layers share. turn: cos and signed sin, [N, 1, size]; x is rotated as x * cos + roll(x) * sin."""

    dtype: torch.dtype
    eps: float
    places: _Places
    turn: tuple[Tensor, Tensor]


def _rows(x: Tensor, places: _Places) -> Tensor:
    """[N, n * h * size] in any shape as flat rows [N * h + 1, n * size]; the last one is zeros, for padding to take."""
    out = x.new_empty(places.nobody + 1, x.numel() // places.nobody)
    out[:-1].view(x.shape).copy_(x)
    out[-1] = 0
    return out


def _padded(rows: Tensor, at: Tensor, size: int) -> Tensor:
    """Flat rows [N * h + 1, n * size] at the places `at` [R, h, L]: [R, h, L * n, size]."""
    return rows.index_select(0, at.flatten()).view(*at.shape[:2], at.shape[2] * rows.shape[1] // size, size)


# -- norms, rotations ----------------------------------------------------------------------------------------------------------------


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last axis, kept as an axis of 1."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_backward(grad: Tensor, x: Tensor, inverse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of y = x * inverse * weight by x and by the weight. Uses up `grad`.

    With n = x * inverse: dx = inverse * (g w - n mean(g w n)), and dw is the sum of g n over the first axis.
    """
    normed = x * inverse
    by_each = grad * normed
    by_weight = by_each.sum(0)
    mean = by_each.mul_(weight).mean(-1, keepdim=True)
    return grad.mul_(weight).addcmul_(normed, mean, value=-1.0).mul_(inverse), by_weight


def _rotate(x_NHS: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    return torch.addcmul(x_NHS * cos, x_NHS.roll(x_NHS.shape[-1] // 2, -1), sin)


def _rotate_backward(grad_NHS: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    return (grad_NHS * sin).roll(grad_NHS.shape[-1] // 2, -1).addcmul_(grad_NHS, cos)


def _joined(weights: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """Weights [out, in] of products with one input, as one, in the compute type."""
    out = weights[0].new_empty(sum(map(len, weights)), weights[0].shape[1], dtype=dtype)
    for part, weight in zip(out.split([len(weight) for weight in weights]), weights, strict=True):
        part.copy_(weight)
    return out


# -- the two halves of a layer -------------------------------------------------------------------------------------------------------


class _Before(torch.autograd.Function):
    """Residual stream [N, D] to queries, keys and values of prompts [P, h, ...] and of completions [B, h, ...].

    A completion's keys and values begin with its prompt's. qkv: the product's output, where sampling left it.
    """

    @staticmethod
    def forward(ctx: Any, how: _How, qkv: Tensor | None, hidden_ND: Tensor, norm: Tensor, *weights: Tensor | None) -> tuple[Tensor, ...]:
        (wq, wk, wv), biases, head_norms = weights[:3], weights[3:6], weights[6:]
        places = how.places
        heads, kv_heads, size = places.heads, places.kv_heads, places.size
        inverse_N1 = _inverse_rms(hidden_ND, how.eps)
        x_ND = (hidden_ND * inverse_N1).mul_(norm).to(how.dtype)
        weight = _joined((wq, wk, wv), how.dtype)  # pyright: ignore[reportArgumentType]
        if qkv is None:
            qkv = product(x_ND, weight)
            if biases[0] is not None:
                qkv += torch.cat(biases).to(how.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
        qkv = qkv.view(len(hidden_ND), -1, size)
        qk = qkv[:, : heads + kv_heads].float()
        raw, inverse = None, None
        if head_norms[0] is not None:
            raw, inverse = qk, _inverse_rms(qk, how.eps)
            qk = (qk * inverse).mul_(_by_head(head_norms, heads, kv_heads))
        qk = _rotate(qk, how.turn)
        q, k, v = (_rows(x, places) for x in (qk[:, :heads], qk[:, heads:], qkv[:, heads + kv_heads :]))
        ctx.save_for_backward(hidden_ND, inverse_N1, norm, x_ND, weight, raw, inverse, *head_norms)
        ctx.how, ctx.sizes, ctx.biased = how, [len(w) for w in (wq, wk, wv)], biases[0] is not None  # pyright: ignore[reportArgumentType]
        here, there, keys = places.prompt_rows, places.completion_rows, places.key_rows
        return tuple(_padded(x, at, size) for x, at in ((q, here), (k, here), (v, here), (q, there), (k, keys), (v, keys)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, inverse_N1, norm, x_ND, weight, raw, inverse, *head_norms = ctx.saved_tensors
        how: _How = ctx.how
        places = how.places
        heads, kv_heads, size = places.heads, places.kv_heads, places.size
        q_P, k_P, v_P, q_B, k_B, v_B = grads
        N, S = len(hidden_ND), places.prompt_rows.shape[-1]
        grad = hidden_ND.new_empty(N, heads + 2 * kv_heads, size)
        ours = len(places.prompt_at) // kv_heads  # tokens of prompts, which come first

        def flat(prompts: Tensor, completions: Tensor, at: Tensor, into_NHS: Tensor) -> None:
            width = into_NHS.shape[1] // kv_heads * size
            for part, padded, places_of in ((into_NHS[:ours], prompts, places.prompt_at), (into_NHS[ours:], completions, at)):
                part.copy_(padded.reshape(-1, width).index_select(0, places_of).view(part.shape))

        def with_members(prompts: Tensor, completions: Tensor) -> Tensor:
            """A prompt's keys are read by itself and by all its completions."""
            if not places.members:
                return prompts
            return prompts + torch.stack([part.sum(0, dtype=torch.float32) for part in completions[:, :, :S].split(places.members)])

        flat(q_P, q_B, places.completion_at, grad[:, :heads])
        flat(with_members(k_P, k_B), k_B, places.own_key_at, grad[:, heads : heads + kv_heads])
        flat(with_members(v_P, v_B), v_B, places.own_key_at, grad[:, heads + kv_heads :])
        qk = _rotate_backward(grad[:, : heads + kv_heads], how.turn)
        by_head_norms: list[Tensor | None] = [None, None]
        if raw is not None:
            qk, by_weight = _norm_backward(qk, raw, inverse, _by_head(head_norms, heads, kv_heads))
            by_head_norms = [part.sum(0) for part in by_weight.split([heads, kv_heads])]
        grad[:, : heads + kv_heads] = qk
        grad = grad.view(N, -1)
        by_biases = grad.sum(0).split(ctx.sizes) if ctx.biased else [None] * 3
        grad = grad.to(how.dtype)
        by_weights = (grad.t() @ x_ND).float().split(ctx.sizes) if ctx.needs_input_grad[4] else [None] * 3
        by_hidden, by_norm = _norm_backward(product(grad, weight.t()).float(), hidden_ND, inverse_N1, norm)
        return None, None, by_hidden, by_norm, *by_weights, *by_biases, *by_head_norms


def _by_head(head_norms: Any, heads: int, kv_heads: int) -> Tensor:
    """Qwen3's norms of queries and keys, [heads + kv heads, size]."""
    q_norm, k_norm = head_norms
    return torch.cat([q_norm.expand(heads, -1), k_norm.expand(kv_heads, -1)])


class _After(torch.autograd.Function):
    """Attention's output of prompts and completions, and the residual stream before it, to the residual stream after the layer.

    made: the products' outputs, where sampling left them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        how: _How,
        made: Products | None,
        hidden_ND: Tensor,
        out_P: Tensor,
        out_B: Tensor,
        wo: Tensor,
        norm: Tensor,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
    ) -> Tensor:
        places, dtype = how.places, how.dtype
        width = places.heads // places.kv_heads * places.size
        mixed = out_P.new_empty(places.nobody, width)
        ours = len(places.prompt_at)
        torch.index_select(out_P.reshape(-1, width), 0, places.prompt_at, out=mixed[:ours])
        torch.index_select(out_B.reshape(-1, width), 0, places.completion_at, out=mixed[ours:])
        mixed_ND = mixed.view(len(hidden_ND), -1)
        wo, wd = wo.to(dtype), down.to(dtype)
        between_ND = hidden_ND + (made.out if made else product(mixed_ND, wo))
        inverse_N1 = _inverse_rms(between_ND, how.eps)
        x_ND = (between_ND * inverse_N1).mul_(norm).to(dtype)
        wg, wu = gate.to(dtype), up.to(dtype)
        gate_NF, up_NF = (made.gate, made.up) if made else (product(x_ND, wg), product(x_ND, wu))
        silu_NF = silu(gate_NF)
        ctx.save_for_backward(mixed_ND, wo, between_ND, inverse_N1, norm, x_ND, wg, wu, gate_NF, up_NF, silu_NF, wd)
        ctx.how = how
        return between_ND + (made.down if made else product(silu_NF * up_NF, wd))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        mixed_ND, wo, between_ND, inverse_N1, norm, x_ND, wg, wu, gate_NF, up_NF, silu_NF, wd = ctx.saved_tensors
        places, dtype = ctx.how.places, ctx.how.dtype
        learns = ctx.needs_input_grad[5]
        grad = grad_ND.to(dtype)
        by_down = (grad.t() @ (silu_NF * up_NF)).float() if learns else None
        inner = product(grad, wd.t())
        by_up_NF = silu_NF * inner
        by_gate_NF = torch.ops.aten.silu_backward(inner.mul_(up_NF), gate_NF)
        by_gate, by_up = ((by_gate_NF.t() @ x_ND).float(), (by_up_NF.t() @ x_ND).float()) if learns else (None, None)
        by_x = product(by_gate_NF, wg.t()).float().add_(product(by_up_NF, wu.t()))
        by_between, by_norm = _norm_backward(by_x, between_ND, inverse_N1, norm)
        by_between += grad_ND
        grad = by_between.to(dtype)
        by_wo = (grad.t() @ mixed_ND).float() if learns else None
        mixed = _rows(product(grad, wo.t()), places)
        by_P, by_B = (_padded(mixed, at, places.size) for at in (places.prompt_rows, places.completion_rows))
        return None, None, by_between, by_P, by_B, by_wo, by_norm, by_gate, by_up, by_down
