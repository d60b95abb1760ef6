"""The sampler: many prompts, `group_size` completions each, in as few and as full forward passes as possible.

What makes it fast: a prompt is prefilled once for its whole group; the key/value cache is allocated once; a finished row leaves at once and
its place is taken by a waiting one (continuous batching); logits are computed for the last position only; one uniform draw per token picks
it by the inverse CDF. Token ids are never decoded and encoded again on their way to the loss. `decoders.py` holds the forward passes.

Not here: beam search, top-p, top-k. The probabilities that were sampled from must be the ones that the loss sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlaif.errors import UsageError
from rlaif.policy.decoders import make_decoder, merged_weights
from rlaif.policy.model import Policy
from rlaif.policy.trace import Trace
from rlaif.types import FinishReason


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample.

    stop_token_ids: None takes the policy's own end-of-sequence ids. stop_texts: a row also ends when its decoded tail contains one of
    these; the token that completed it stays (it is an action like any other).
    """

    max_new_tokens: int = 80
    temperature: float = 1.0
    greedy: bool = False
    stop_token_ids: frozenset[int] | None = None
    stop_texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError("max_new_tokens must be at least 1", f"it is {self.max_new_tokens}")
        if not self.temperature > 0:
            raise UsageError("temperature must be above 0", f"it is {self.temperature}", "for the most likely tokens use greedy")


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion. `logp_T` are the sampler's own log-probabilities of `token_ids`, at the sampling temperature (greedy: at 1)."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logp_T: tuple[float, ...]


@dataclass(slots=True)
class _Row:
    """A completion in flight."""

    prompt: int
    member: int
    token_ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@torch.no_grad()
def sample(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    group_size: int,
    params: SamplingParams,
    generator: torch.Generator | None = None,
    *,
    rows_in_flight: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    draws_PGT: Tensor | None = None,
    trace: Trace | None = None,
) -> list[list[Sample]]:
    """Sample `group_size` completions of every prompt; returns them as [P][G].

    generator: all randomness is drawn from it before the first token, one number per (prompt, member, step), so that a completion does not
    depend on who shares its batch (to the rounding of the matrix products). rows_in_flight: rows per forward pass, by default as many as
    the processor likes and the cache's memory allows. progress(done, total): called whenever rows have finished. draws_PGT: `draws(...)` made by
    the caller, for a part of a larger batch. trace: an empty one, to be filled for an update of the same weights.
    Raises UsageError for an empty prompt, or a prompt that leaves no room in the model's context.
    """
    prompts = [list(ids) for ids in prompt_ids]
    if not prompts or group_size < 1:
        if policy.shards is not None:
            merged_weights(policy, policy.compute_dtype)  # the others are gathering theirs, and need this process's share
        return [[] for _ in prompts]
    _check_lengths(policy, prompts, params)
    uniform_PGT = draws(len(prompts), group_size, params, generator) if draws_PGT is None else draws_PGT
    stop_ids = policy.stop_token_ids if params.stop_token_ids is None else params.stop_token_ids
    stop_texts = _StopTexts(policy.tokenizer, params.stop_texts)
    if trace is not None:
        trace.begin(group_size, len(prompts) * (max(map(len, prompts)) + group_size * (params.max_new_tokens - 1)))
    decoder = make_decoder(policy, max(map(len, prompts)), params.max_new_tokens, group_size, rows_in_flight, len(prompts) * group_size, trace)

    queue = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))  # by length: rows in flight share a length, the longest go first
    results: list[list[Sample | None]] = [[None] * group_size for _ in prompts]
    active: list[_Row] = []  # active[i] is in the decoder's slot i
    done = 0

    def take(rows: list[_Row], logits_RV: Tensor) -> None:
        """Choose the next token of each row, and decide whether the row ends with it."""
        uniform_R = torch.stack([uniform_PGT[row.prompt, row.member, len(row.token_ids)] for row in rows])
        token_R, logp_R = choose(logits_RV, params, uniform_R.to(logits_RV.device))
        for row, token, logp in zip(rows, token_R.tolist(), logp_R.tolist(), strict=True):
            row.token_ids.append(token)
            row.logps.append(logp)
            if token in stop_ids:
                row.finish_reason = "eos"
            elif stop_texts.ends(row.token_ids):
                row.finish_reason = "stop"
            elif len(row.token_ids) == params.max_new_tokens:
                row.finish_reason = "length"

    def retire() -> None:
        """Hand out finished rows and close the holes they leave with the rows at the end."""
        nonlocal done
        finished = [slot for slot, row in enumerate(active) if row.finish_reason]
        if not finished:
            return
        for slot in finished:
            row = active[slot]
            assert row.finish_reason is not None
            results[row.prompt][row.member] = Sample(tuple(row.token_ids), row.finish_reason, tuple(row.logps))
        left = len(active) - len(finished)
        holes = [slot for slot in finished if slot < left]
        movers = [slot for slot in range(left, len(active)) if not active[slot].finish_reason]
        for hole, mover in zip(holes, movers, strict=True):
            active[hole] = active[mover]
        decoder.move(movers, holes, left)
        del active[left:]
        done += len(finished)
        if progress:
            progress(done, len(prompts) * group_size)

    while queue or active:
        room = min(decoder.room(group_size), len(queue))
        # a few prompts at a time: one prefill of many tokens is cheaper than many of few
        if room and (not active or room >= min(len(queue), max(1, decoder.rows // group_size // 8))):
            chosen = [queue.pop() for _ in range(room)]
            logits_PV = decoder.admit([prompts[index] for index in chosen], group_size)
            if trace is not None and trace.ready:
                trace.name_prompts(chosen)
            new = [_Row(index, member) for index in chosen for member in range(group_size)]
            active += new
            take(new, logits_PV.repeat_interleave(group_size, dim=0))
            retire()
            continue
        logits_RV = decoder.step([row.token_ids[-1] for row in active])
        if trace is not None and trace.ready:
            trace.name_rows([row.prompt * group_size + row.member for row in active])
        take(active, logits_RV)
        retire()
    return results  # type: ignore[return-value]  # every row has been handed out


def draws(P: int, group_size: int, params: SamplingParams, generator: torch.Generator | None) -> Tensor:
    """All the randomness of one call of `sample`: uniform numbers in [0, 1), float64, [P, G, T]."""
    return torch.rand(P, group_size, params.max_new_tokens, generator=generator, dtype=torch.float64)


def choose(logits_RV: Tensor, params: SamplingParams, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Next token of each row and its log-probability, both [R]; `uniform_R` are draws from [0, 1).

    The smallest token v with CDF(v) > u is found in two steps, blocks of the vocabulary first, because a running sum over all of it is
    slow and a long float32 sum inexact.
    """
    logits_RV = logits_RV.float()
    if params.greedy:
        token_R = logits_RV.argmax(-1)
        return token_R, logits_RV.gather(1, token_R[:, None])[:, 0] - logits_RV.logsumexp(-1)
    if params.temperature != 1.0:
        logits_RV = logits_RV / params.temperature
    rows, vocabulary = logits_RV.shape
    prob_RV = logits_RV.softmax(-1)
    block = 256
    if vocabulary % block:
        prob_RV = torch.nn.functional.pad(prob_RV, (0, block - vocabulary % block))
    prob_RKb = prob_RV.view(rows, -1, block)
    cdf_RK = prob_RKb.sum(-1).double().cumsum(-1)
    target_R1 = uniform_R[:, None] * cdf_RK[:, -1:]
    block_R1 = torch.searchsorted(cdf_RK, target_R1, right=True).clamp_(max=cdf_RK.shape[1] - 1)
    below_R1 = torch.where(block_R1 > 0, cdf_RK.gather(1, (block_R1 - 1).clamp(min=0)), 0.0)
    inside_Rb = prob_RKb[torch.arange(rows, device=prob_RV.device), block_R1[:, 0]].double().cumsum(-1)
    # rounding may leave the target a hair above the block's sum: then its last token of any probability, never one of none
    target_R1 = torch.minimum(target_R1 - below_R1, inside_Rb[:, -1:] * (1 - 1e-12))
    offset_R1 = torch.searchsorted(inside_Rb, target_R1, right=True).clamp_(max=block - 1)
    token_R = (block_R1 * block + offset_R1)[:, 0].clamp_(max=vocabulary - 1)
    return token_R, prob_RV.gather(1, token_R[:, None])[:, 0].log()


class _StopTexts:
    """Does a row's decoded tail contain a stop text? Rows are decoded only when the new token could have completed one."""

    def __init__(self, tokenizer: Any, texts: tuple[str, ...]) -> None:
        self.tokenizer, self.texts = tokenizer, tuple(text for text in texts if text)
        self.final_characters = {text[-1] for text in self.texts}
        self.may_complete: dict[int, bool] = {}

    def ends(self, token_ids: list[int]) -> bool:
        if not self.texts:
            return False
        last = token_ids[-1]
        if last not in self.may_complete:
            piece = self.tokenizer.decode([last], clean_up_tokenization_spaces=False)
            # an undecodable piece is part of a character, and might be the last part of the one waited for
            self.may_complete[last] = "\ufffd" in piece or not self.final_characters.isdisjoint(piece)
        if not self.may_complete[last]:
            return False
        longest = max(map(len, self.texts))
        tail = self.tokenizer.decode(token_ids[-(4 * longest + 8) :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return any(text in tail for text in self.texts)


def _check_lengths(policy: Policy, prompts: list[list[int]], params: SamplingParams) -> None:
    if not all(prompts):
        raise UsageError("A prompt has no tokens", "", "a model needs at least one token to continue from")
    context = context_length(policy)
    longest = max(map(len, prompts)) + (0 if policy.is_encoder_decoder else params.max_new_tokens)
    if context is not None and longest > context:
        raise UsageError(
            f"Prompt and completion need {longest} tokens, and the model's context is {context}",
            f"the longest prompt has {max(map(len, prompts))} tokens, max_new_tokens is {params.max_new_tokens}",
            "--max-new-tokens with a smaller number, or shorter problems",
        )


def context_length(policy: Policy) -> int | None:
    """Tokens that fit the model's positions, or None where there is no limit (T5). A sliding window counts as the limit."""
    config = policy.config
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    limit = next((value for value in limits if isinstance(value, int)), None) if config.model_type != "t5" else None
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    values = [value - policy.first_position for value in (limit,) if value is not None] + ([window] if window else [])
    return min(values) if values else None
