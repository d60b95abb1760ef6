"""Sampled tokens per second: this package's sampler beside transformers' `generate`, same model, prompts, batch and lengths, one run.

    python benchmarks/sampler.py --model smollm2-135m --prompts 8 --group 8 --new-tokens 80

Both sides sample at temperature 1 with no top-k or top-p and are timed in turns (best of `--repeats`), so that a noisy neighbour hits both.
`generate` is given its better setting: left-padded batch, bf16 and float32 weights each on their own, `cache_implementation` default.
End-of-sequence is switched off by default, so both sides make exactly the same number of tokens; `--eos` lets rows end.
The last lines are the machine's measured ceiling: the model's matrix products alone, at this batch, without anything between them.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from rlaif.policy.model import Policy, load_policy
from rlaif.policy.sampler import SamplingParams, sample

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


def ours(policy: Policy, prompts: list[list[int]], group: int, new_tokens: int, eos: bool) -> tuple[int, float]:
    """Tokens made and seconds taken by one call of `sample`."""
    params = SamplingParams(new_tokens, stop_token_ids=None if eos else frozenset())
    start = time.perf_counter()
    samples = sample(policy, prompts, group, params, torch.Generator().manual_seed(0))
    return sum(len(one.token_ids) for group_samples in samples for one in group_samples), time.perf_counter() - start


@torch.no_grad()
def theirs(model: torch.nn.Module, policy: Policy, prompts: list[list[int]], group: int, new_tokens: int, eos: bool) -> tuple[int, float]:
    """Tokens made and seconds taken by `generate` on the same rows."""
    rows = [prompt for prompt in prompts for _ in range(group)]
    longest, pad = max(map(len, rows)), policy.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=policy.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=policy.device)
    stop = sorted(policy.stop_token_ids)
    length = {} if eos else {"min_new_tokens": new_tokens}
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
        eos_token_id=stop,
        **length,
    )
    seconds = time.perf_counter() - start
    new = out[:, longest:]
    ended = torch.isin(new, torch.tensor(stop, device=new.device)).long().cumsum(-1)
    return int((ended - torch.isin(new, torch.tensor(stop, device=new.device)).long() == 0).sum()), seconds


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
    parser.add_argument("--eos", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for dtype in args.dtypes:
        policy = load_policy(args.model, dtype=dtype)
        plain = load_policy(args.model, dtype=dtype, trainable=False).model
        prompts = chat_prompts(policy, args.prompts)
        rates: dict[str, list[float]] = {"ours": [], "generate": []}
        ours(policy, prompts, args.group, 2, False)
        theirs(plain, policy, prompts, args.group, 2, False)
        for _ in range(args.repeats):
            for name, (tokens, seconds) in (
                ("ours", ours(policy, prompts, args.group, args.new_tokens, args.eos)),
                ("generate", theirs(plain, policy, prompts, args.group, args.new_tokens, args.eos)),
            ):
                rates[name].append(tokens / seconds)
        best = {name: max(values) for name, values in rates.items()}
        result = {
            "model": args.model,
            "dtype": dtype,
            "device": str(policy.device),
            "threads": torch.get_num_threads(),
            "rows": args.prompts * args.group,
            "prompt_tokens": sum(map(len, prompts)) / len(prompts),
            "new_tokens": args.new_tokens,
            "ours_tokens_per_s": round(best["ours"], 1),
            "generate_tokens_per_s": round(best["generate"], 1),
            "ratio": round(best["ours"] / best["generate"], 2),
            "products_only_tokens_per_s": round(ceiling(policy, args.prompts * args.group), 1),
        }
        print(json.dumps(result) if args.json else "\n".join(f"{key:>28}: {value}" for key, value in result.items()) + "\n", flush=True)


if __name__ == "__main__":
    main()
