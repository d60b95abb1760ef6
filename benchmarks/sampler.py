"""Sampled tokens per second: this package's sampler beside transformers' `generate`, same model, prompts, batch and lengths, one run.

    python benchmarks/sampler.py --model smollm2-135m --prompts 8 --group 8 --new-tokens 80
    python benchmarks/sampler.py --model my_model --problems builtin --eos --new-tokens 64 --repeats 8

Both sides sample at temperature 1 with no top-k or top-p and are timed in turns, so that a noisy neighbour hits both: all tokens over all seconds,
and the range of the turns' ratios. `generate` is given its better setting: left-padded batch, bf16 and float32 weights each on their own,
`cache_implementation` default. End-of-sequence is switched off by default, so both sides make exactly the same number of tokens; with `--eos` rows
end as they do in training, and only tokens up to a row's end count. With `--problems` the prompts are a set's held-out ones, others in each turn.
The last line is what the model's matrix products alone make at this batch, by plain `linear`, without anything between them.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

import torch

from rlaif.policy.model import Policy, load_policy
from rlaif.policy.sampler import SamplingParams, sample
from rlaif.problems import load_problems
from rlaif.train.rollout import make_prompts

TASKS = (
    "adds two numbers",
    "reverses a string",
    "counts the vowels of a text",
    "returns the n-th Fibonacci number",
    "merges two sorted lists",
    "finds the longest word of a sentence and returns its length",
    "checks whether a number is prime",
    "removes duplicates from a list, keeping order",
)


def chat_prompts(policy: Policy, count: int) -> list[list[int]]:
    """`count` instruction prompts of different lengths, as token ids."""
    texts = [f"Write a Python function that {TASKS[i % len(TASKS)]}. Example {i}: show only the code." for i in range(count)]
    if policy.tokenizer.chat_template is None:
        return [policy.tokenizer(text).input_ids for text in texts]
    return [policy.tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"] for text in texts]


def all_prompts(policy: Policy, problems: str | None, count: int) -> tuple[list[list[int]], tuple[str, ...]]:
    """Prompts to choose a turn's `count` from, as token ids, and the texts that end an answer to them."""
    if problems is None:
        return chat_prompts(policy, count), ()
    prompts, ids = make_prompts(load_problems(problems, split="test"), policy.tokenizer)
    return ids, prompts[0].stop_texts


def ours(policy: Policy, prompts: list[list[int]], group: int, new_tokens: int, stops: tuple[str, ...] | None, seed: int) -> tuple[int, float]:
    """Tokens made and seconds taken by one call of `sample`. stops: texts that end a row, as the model's stop tokens do; None: nothing does."""
    ends = {"stop_token_ids": frozenset()} if stops is None else {"stop_texts": stops}
    start = time.perf_counter()
    samples = sample(policy, prompts, group, SamplingParams(new_tokens, **ends), torch.Generator().manual_seed(seed))
    return sum(len(one.token_ids) for group_samples in samples for one in group_samples), time.perf_counter() - start


@torch.no_grad()
def theirs(
    model: torch.nn.Module, policy: Policy, prompts: list[list[int]], group: int, new_tokens: int, stops: tuple[str, ...] | None, seed: int
) -> tuple[int, float]:
    """Tokens made and seconds taken by `generate` on the same rows; what it writes after a row's end is not counted."""
    torch.manual_seed(seed)
    rows = [prompt for prompt in prompts for _ in range(group)]
    longest, pad = max(map(len, rows)), policy.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=policy.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=policy.device)
    ends: dict[str, Any] = {"min_new_tokens": new_tokens} if stops is None else {}
    if stops:
        ends |= {"stop_strings": list(stops), "tokenizer": policy.tokenizer}
    start = time.perf_counter()
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(policy.stop_token_ids),
        **ends,
    )
    seconds = time.perf_counter() - start
    ended = torch.isin(out[:, longest:], torch.tensor([pad, *policy.stop_token_ids], device=out.device)).long().cumsum(-1)
    # a row that ended early counts one token more, its stop token; where a stop text ended it that is one too many, in favour of `generate`
    return int((ended == 0).sum() + (ended[:, -1] > 0).sum()), seconds


@torch.no_grad()
def ceiling(policy: Policy, rows: int) -> float:
    """Tokens per second if a step were nothing but the model's matrix products (plain `linear`, weights in memory order)."""
    weights = [
        parameter.detach().to(policy.compute_dtype)
        for name, parameter in policy.base.named_parameters()
        if parameter.ndim == 2 and "embed" not in name
    ]
    if policy.base.get_output_embeddings().weight is policy.base.get_input_embeddings().weight:
        weights.append(policy.base.get_output_embeddings().weight.detach().to(policy.compute_dtype))
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1], device=policy.device, dtype=policy.compute_dtype) for w in weights}
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        for w in weights:
            torch.nn.functional.linear(inputs[w.shape[1]], w)
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return rows / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--problems", help="a problem set, as for `rlaif train`")
    parser.add_argument("--eos", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for dtype in args.dtypes:
        policy = load_policy(args.model, dtype=dtype)
        plain = load_policy(args.model, dtype=dtype, trainable=False).model
        known, stops = all_prompts(policy, args.problems, args.prompts)
        stops = stops if args.eos else None
        sides = {"ours": partial(ours, policy), "generate": partial(theirs, plain, policy)}
        for side in sides.values():
            side(known[: args.prompts], args.group, 2, stops, 0)
        runs: dict[str, list[tuple[int, float]]] = {name: [] for name in sides}
        for turn in range(args.repeats):
            prompts = [known[(turn * args.prompts + i) % len(known)] for i in range(args.prompts)]
            for name, side in sides.items():
                runs[name].append(side(prompts, args.group, args.new_tokens, stops, turn))
        tokens = {name: sum(made for made, _ in turns) for name, turns in runs.items()}
        rate = {name: tokens[name] / sum(seconds for _, seconds in turns) for name, turns in runs.items()}
        ratios = [a / seconds_a / (b / seconds_b) for (a, seconds_a), (b, seconds_b) in zip(runs["ours"], runs["generate"], strict=True)]
        result = {
            "model": args.model,
            "dtype": dtype,
            "device": str(policy.device),
            "threads": torch.get_num_threads(),
            "rows": args.prompts * args.group,
            "turns": args.repeats,
            "prompt_tokens": round(sum(map(len, known)) / len(known), 1),
            "new_tokens_at_most": args.new_tokens,
            "new_tokens_mean": round(tokens["ours"] / (args.repeats * args.prompts * args.group), 1),
            "ours_tokens_per_s": round(rate["ours"], 1),
            "generate_tokens_per_s": round(rate["generate"], 1),
            "ratio": round(rate["ours"] / rate["generate"], 2),
            "ratio_of_turns": f"{min(ratios):.2f} to {max(ratios):.2f}",
            "products_only_tokens_per_s": round(ceiling(policy, args.prompts * args.group), 1),
        }
        print(json.dumps(result) if args.json else "\n".join(f"{key:>28}: {value}" for key, value in result.items()) + "\n", flush=True)


if __name__ == "__main__":
    main()
