"""The fast decoder for the Llama family (llama, mistral, qwen2, qwen3): few, large operations, and a prompt's keys read once for its group.

On two cores a decoding step of 64 rows is bounded by the matrix products (about 50 ms for 135M parameters in bf16), so everything else must
stay small beside them. Against running the transformers module:
- projections that share an input are one product; weights are kept in the blocked layout that oneDNN computes in (packed once an episode);
- keys live in float32 and values in the compute type, in tensors allocated once; grouped-query heads are query positions of their shared
  key, never repeated keys;
- the prompt's keys are stored once per group and attended by all its rows in one product. With o_p, lse_p the attention output and log
  normaliser over the prompt and s_t the scores of own tokens, the exact attention over both is softmax([lse_p, s_1..s_t]) @ [o_p, v_1..v_t].
The residual stream is float32, as it is under autocast in training, which keeps the sampler's probabilities close to the trainer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from rlaif.policy.decoders import merged_weights
from rlaif.policy.linear import PackedLinear
from rlaif.policy.model import Policy
from rlaif.policy.trace import Products, Trace

FUSED_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def can_fuse(policy: Policy) -> bool:
    """True for models whose layers are what `FusedWeights` computes: SiLU gates, RMSNorm, ordinary rotary positions."""
    config = policy.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return (
        config.model_type in FUSED_MODELS
        and config.hidden_act == "silu"
        and rope in {"default", "linear", "llama3", "yarn"}
        and not getattr(config, "mlp_bias", False)
        and getattr(policy.base.model.layers[0].self_attn.o_proj, "bias", None) is None
    )


def head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rotations(rotary: nn.Module, like: Tensor, position_N: Tensor) -> tuple[Tensor, Tensor]:
    """cos and signed sin for x * cos + roll(x) * sin, half a head's size being rolled: [N, 1, size], float32, where `like` is."""
    cos_NS, sin_NS = (x[0].float() for x in rotary(like, position_N[None]))
    sin_NS[:, : sin_NS.shape[-1] // 2] *= -1
    return cos_NS[:, None], sin_NS[:, None]


@dataclass(slots=True)
class _Layer:
    qkv: PackedLinear
    out: PackedLinear
    gate: PackedLinear
    up: PackedLinear
    down: PackedLinear
    norm_in: Tensor
    norm_mlp: Tensor
    norm_q: Tensor | None = None
    norm_k: Tensor | None = None


class FusedWeights:
    """The policy's weights in the sampler's type and layout: a second copy, kept on the policy and refreshed for each call of `sample`.

    frozen: for weights that will not change, and long inputs: the policy's own tensors are used as they are, where their type is right.
    """

    def __init__(self, policy: Policy, *, frozen: bool = False) -> None:
        config = policy.config
        self.frozen = frozen
        self.dtype, self.device = policy.compute_dtype, policy.device
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size, self.inner = head_size(config), config.intermediate_size
        self.eps = config.rms_norm_eps
        self.rotary: nn.Module = policy.base.model.rotary_emb
        self.head = self._linear()
        self.layers: list[_Layer] = []
        self.embedding = self.norm_out = torch.empty(0)

    def _linear(self) -> PackedLinear:
        return PackedLinear(self.dtype, self.device, self.frozen)

    @torch.no_grad()
    def refresh(self, policy: Policy, rows: int) -> None:
        """Take over the policy's current weights; `rows` is the usual number of rows of a step."""
        weights = merged_weights(policy, self.dtype)
        if not self.layers:
            zero = [_Layer(*(self._linear() for _ in range(5)), torch.empty(0), torch.empty(0)) for _ in policy.base.model.layers]
            self.layers = zero
        for index, layer in enumerate(self.layers):
            prefix = f"model.layers.{index}."
            attention, mlp = prefix + "self_attn.", prefix + "mlp."
            projections = [attention + name for name in ("q_proj", "k_proj", "v_proj")]
            biases = [weights[name + ".bias"] for name in projections if name + ".bias" in weights]
            layer.qkv.load(torch.cat([weights[name + ".weight"] for name in projections]), torch.cat(biases) if biases else None, rows)
            for target, name in (
                (layer.out, attention + "o_proj"),
                (layer.gate, mlp + "gate_proj"),
                (layer.up, mlp + "up_proj"),
                (layer.down, mlp + "down_proj"),
            ):
                target.load(weights[name + ".weight"], None, rows)
            layer.norm_in = weights[prefix + "input_layernorm.weight"].float()
            layer.norm_mlp = weights[prefix + "post_attention_layernorm.weight"].float()
            if attention + "q_norm.weight" in weights:
                layer.norm_q, layer.norm_k = weights[attention + "q_norm.weight"].float(), weights[attention + "k_norm.weight"].float()
        self.embedding = weights["model.embed_tokens.weight"]
        self.norm_out = weights["model.norm.weight"].float()
        self.head.load(weights.get("lm_head.weight", self.embedding), None, rows)

    def rotations(self, position_N: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin for x * cos + roll(x) * sin over query and key heads, [N, heads + kv heads, size]; queries are scaled too."""
        cos, sin = rotations(self.rotary, self.norm_out, position_N)
        scale = torch.ones(self.heads + self.kv_heads, 1, device=self.device)
        scale[: self.heads] = self.size**-0.5
        return cos * scale, sin * scale

    def run(
        self,
        token_N: Tensor,
        position_N: Tensor,
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
        wanted_N: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Last hidden states [N, D], float32, before the final norm. attend(layer, q_NHD, k_NhD, v_NhD) -> [N, heads * size]; q is scaled.

        wanted_N: of which tokens; the last layer is then computed for these alone. trace: where the products' outputs go.
        """
        hidden = self.embedding[token_N].float()
        width, rotated, size = (hidden.shape[-1],), self.heads + self.kv_heads, self.size
        cos, sin = self.rotations(position_N)
        for index, layer in enumerate(self.layers):
            x = rms_norm(hidden, width, layer.norm_in, self.eps).to(self.dtype)
            qkv = layer.qkv(x).view(-1, rotated + self.kv_heads, size)
            qk, v = qkv[:, :rotated].float(), qkv[:, rotated:]
            if layer.norm_q is not None:
                q = rms_norm(qk[:, : self.heads], (size,), layer.norm_q, self.eps)
                qk = torch.cat([q, rms_norm(qk[:, self.heads :], (size,), layer.norm_k, self.eps)], dim=1)
            qk = torch.addcmul(qk * cos, qk.roll(size // 2, -1), sin)
            mixed = attend(index, qk[:, : self.heads], qk[:, self.heads :], v)
            if wanted_N is not None and index == len(self.layers) - 1:
                mixed, hidden = mixed[wanted_N], hidden[wanted_N]
            out = layer.out(mixed.to(self.dtype))
            hidden = hidden + out
            x = rms_norm(hidden, width, layer.norm_mlp, self.eps).to(self.dtype)
            if trace is None:
                hidden += layer.down(layer.up(x, times=layer.gate(x, "swish")))
            else:
                gate, up = layer.gate(x), layer.up(x)
                down = layer.down(silu(gate).mul_(up))
                trace.put(index, Products(qkv.flatten(1), out, gate, up, down))
                hidden += down
        return hidden

    def widths(self) -> tuple[int, ...]:
        """Of the outputs of a layer's products, as `Products` has them."""
        model, inner = self.embedding.shape[1], self.inner
        return (self.heads + 2 * self.kv_heads) * self.size, model, inner, inner, model

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V]."""
        return self.head(rms_norm(hidden_ND, hidden_ND.shape[-1:], self.norm_out, self.eps).to(self.dtype))


class FusedDecoder:
    """Rows in slots over `FusedWeights`. Prompt keys stand in slots of their own, one per group in flight."""

    def __init__(self, policy: Policy, rows: int, prompt_tokens: int, new_tokens: int, group_size: int, trace: Trace | None = None) -> None:
        if policy._fused is None:
            policy._fused = FusedWeights(policy)
        self.weights: FusedWeights = policy._fused
        self.weights.refresh(policy, rows)
        self.device, self.rows = policy.device, rows
        w = self.weights
        self.repeats = w.heads // w.kv_heads
        layers = len(w.layers)
        self.trace = trace if trace is not None and trace.reserve(layers, w.widths(), w.dtype) else None
        self.prompt_slots = 2 * -(-rows // group_size)  # groups thin out before they leave, so there are more of them than full ones

        # zeros, not empty: a masked score times a NaN from old memory would still be NaN. Pages are paid for only when rows get there
        # keys and values apart: [slots, heads, tokens, size] cut to any length can be seen as [slots * heads, ...] without a copy
        def allocate(slots: int, tokens: int) -> list[tuple[Tensor, Tensor]]:
            shape = (slots, w.kv_heads, tokens, w.size)
            return [(torch.zeros(shape, device=self.device), torch.zeros(shape, device=self.device, dtype=w.dtype)) for _ in range(layers)]

        self.prompt_kv, self.own_kv = allocate(self.prompt_slots, prompt_tokens), allocate(rows, new_tokens)
        self.parents: list[int] = []  # of each row in use: its prompt's slot
        self.prompt_lengths: list[int] = []  # of each prompt slot in use
        self.own_lengths: list[int] = []
        self.plan: dict[str, Any] | None = None

    def room(self, group_size: int) -> int:
        return min((self.rows - len(self.parents)) // group_size, self.prompt_slots - len(self.prompt_lengths))

    def admit(self, prompts: Sequence[list[int]], group_size: int) -> Tensor:
        """Prefilled a few at a time: prompts come sorted by length, so a part has little padding, and its activations stay in the cache."""
        tokens, parts = (1024 if self.device.type == "cpu" else 16384), [[prompts[0]]]
        for prompt in prompts[1:]:
            if (len(parts[-1]) + 1) * max(map(len, [*parts[-1], prompt])) > tokens:
                parts.append([])
            parts[-1].append(prompt)
        return torch.cat([self._prefill(part, group_size) for part in parts])

    def _prefill(self, prompts: Sequence[list[int]], group_size: int) -> Tensor:
        w, first = self.weights, len(self.prompt_lengths)
        lengths = [len(prompt) for prompt in prompts]
        P, S = len(prompts), max(lengths)
        ids = torch.tensor([prompt + [0] * (S - len(prompt)) for prompt in prompts], device=self.device)
        position_N = torch.arange(S, device=self.device).repeat(P)

        def attend(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            """Causal; padding stands on the right, where no real query looks."""
            q, k, v = (x.unflatten(0, (P, S)).transpose(1, 2) for x in (q, k, v))
            for store, new in zip(self.prompt_kv[index], (k, v), strict=True):
                store[first : first + P, :, :S] = new
            q, k, v = (x.to(w.dtype) for x in (q, k.repeat_interleave(self.repeats, 1), v.repeat_interleave(self.repeats, 1)))
            out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
            return out.transpose(1, 2).reshape(P * S, -1)

        hidden_PSD = w.run(ids.flatten(), position_N, attend, trace=self.trace).unflatten(0, (P, S))
        if self.trace is not None:
            self.trace.admit(lengths, S)
        last_P = torch.tensor(lengths, device=self.device) - 1
        self.parents += [first + p for p in range(P) for _ in range(group_size)]
        self.own_lengths += [0] * (P * group_size)
        self.prompt_lengths += lengths
        self.plan = None
        return w.logits(hidden_PSD[torch.arange(P, device=self.device), last_P])

    def _make_plan(self) -> dict[str, Any]:
        """What stays the same until rows come or go: where each row stands in the [prompts, members] grid, and the prompt's mask."""
        P, members = len(self.prompt_lengths), [0] * len(self.prompt_lengths)
        cells = []
        for parent in self.parents:
            cells.append((parent, members[parent]))
            members[parent] += 1
        width = max(members)
        grid = [0] * (P * width)
        for row, (parent, member) in enumerate(cells):
            grid[parent * width + member] = row
        longest = max(self.prompt_lengths)
        length_P = torch.tensor(self.prompt_lengths, device=self.device)
        bias = None
        if min(self.prompt_lengths) < longest:
            hidden_PS = torch.arange(longest, device=self.device) >= length_P[:, None]
            bias = torch.zeros(P, longest, device=self.device).masked_fill_(hidden_PS, -torch.inf)
            bias = bias[:, None].repeat_interleave(self.weights.kv_heads, 0)  # [P * kv heads, 1, S]
        in_order = grid == list(range(len(self.parents)))
        return {
            "P": P,
            "width": width,
            "longest": longest,
            "bias": bias,
            "grid": None if in_order else torch.tensor(grid, device=self.device),
            "cell_R": None if in_order else torch.tensor([parent * width + member for parent, member in cells], device=self.device),
            "offset_R": length_P[torch.tensor(self.parents, device=self.device)],
        }

    def step(self, token_ids: list[int]) -> Tensor:
        if self.plan is None:
            self.plan = self._make_plan()
        w, plan = self.weights, self.plan
        R, h, D, P, width = len(token_ids), w.kv_heads, w.size, plan["P"], plan["width"]
        length_R = torch.tensor(self.own_lengths, device=self.device)
        row_R = torch.arange(R, device=self.device)
        T = max(self.own_lengths) + 1
        in_step, bias = min(self.own_lengths) + 1 == T, None
        if not in_step:
            unseen_RT = torch.arange(T, device=self.device) > length_R[:, None]
            bias = torch.zeros(R, T, device=self.device).masked_fill_(unseen_RT, -torch.inf)[:, None].repeat_interleave(h, 0)

        def attend(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            own = self.own_kv[index]
            for store, new in zip(own, (k, v), strict=True):
                if in_step:
                    store[:R, :, T - 1] = new
                else:
                    store[row_R, :, length_R] = new
            # prompts: the rows of a group are query positions of one product over the prompt's keys
            q_grid = (q if plan["grid"] is None else q[plan["grid"]]).view(P, width, h, self.repeats, D)
            q_grid = q_grid.transpose(1, 2).reshape(P * h, width * self.repeats, D)
            keys, values = (x[:P, :, : plan["longest"]].flatten(0, 1) for x in self.prompt_kv[index])
            scores = _scores(q_grid, keys, plan["bias"])
            prob = scores.softmax(-1)
            # the highest probability is exp(highest score - lse), which spares a second pass of exponentials
            lse = scores.amax(-1, keepdim=True) - prob.amax(-1, keepdim=True).log()
            seen = torch.cat([torch.bmm(prob.to(w.dtype), values), lse], dim=-1)
            seen = seen.view(P, h, width, self.repeats, D + 1).transpose(1, 2).reshape(P * width, h, self.repeats, D + 1)
            seen = (seen if plan["cell_R"] is None else seen[plan["cell_R"]]).flatten(0, 1)
            # own tokens, with the prompt as one more column
            keys, values = (x[:R, :, :T].flatten(0, 1) for x in own)
            scores = _scores(q.reshape(R * h, self.repeats, D), keys, bias)
            weight = torch.cat([seen[..., D:], scores], dim=-1).softmax(-1)
            mixed = torch.bmm(weight[..., 1:].to(w.dtype), values).float()
            return mixed.addcmul_(weight[..., :1], seen[..., :D]).view(R, -1)

        hidden_RD = w.run(torch.tensor(token_ids, device=self.device), plan["offset_R"] + length_R, attend, trace=self.trace)
        self.own_lengths = [length + 1 for length in self.own_lengths]
        return w.logits(hidden_RD)

    def move(self, sources: list[int], targets: list[int], left: int) -> None:
        if sources:
            for pair in self.own_kv:
                for own in pair:
                    own[targets] = own[sources]
            for source, target in zip(sources, targets, strict=True):
                self.own_lengths[target], self.parents[target] = self.own_lengths[source], self.parents[source]
        del self.own_lengths[left:], self.parents[left:]
        self._drop_prompts()
        self.plan = None

    def _drop_prompts(self) -> None:
        """Free the slots of prompts whose rows have all left, filling holes from the end."""
        used = set(self.parents)
        for slot in reversed(range(len(self.prompt_lengths))):
            if slot in used:
                continue
            last = len(self.prompt_lengths) - 1
            if slot != last:
                for pair in self.prompt_kv:
                    for prompt in pair:
                        prompt[slot] = prompt[last]
                self.prompt_lengths[slot] = self.prompt_lengths[last]
                self.parents = [slot if parent == last else parent for parent in self.parents]
            self.prompt_lengths.pop()


def _scores(query: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    keys = keys.transpose(1, 2)
    return torch.bmm(query, keys) if bias is None else torch.baddbmm(bias, query, keys)
