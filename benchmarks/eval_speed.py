"""Seconds to sample one greedy completion for every HumanEval problem, and to run their tests: prefill, decoding and grading apart.

RLAIF_SHARED=<folder with data/humaneval.jsonl> python benchmarks/eval_speed.py
... --limit 32 --new-tokens 128 --rows 48 --json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from rlaif.config import EvalConfig
from rlaif.evals import evaluate
from rlaif.policy import decoders, fused, sampler
from rlaif.policy.model import load_policy
from rlaif.problems import load_problems
from rlaif.sandbox import Sandbox
from rlaif.train.held_out import policy_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--problems", default=None, help="default: $RLAIF_SHARED/data/humaneval.jsonl")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--rows", type=int, default=None, help="rows in flight; default: as the sampler chooses")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    shared = os.environ.get("RLAIF_SHARED")
    if not (args.problems or shared):
        parser.error("set RLAIF_SHARED to a folder with data/humaneval.jsonl, or give --problems")
    problems = load_problems(args.problems or str(Path(shared or "", "data", "humaneval.jsonl")), limit=args.limit)
    policy = load_policy(args.model, dtype=args.dtype, trainable=False)
    spent = {"prefill_s": 0.0, "decode_s": 0.0}
    counted = {"prompt_tokens": 0, "steps": 0}
    decoder = fused.FusedDecoder if fused.can_fuse(policy) else decoders.HFDecoder
    admit, step, make = decoder.admit, decoder.step, sampler.make_decoder

    def timed_admit(self, prompts, group_size):
        start = time.perf_counter()
        logits = admit(self, prompts, group_size)
        spent["prefill_s"] += time.perf_counter() - start
        counted["prompt_tokens"] += sum(map(len, prompts))
        return logits

    def timed_step(self, token_ids):
        start = time.perf_counter()
        logits = step(self, token_ids)
        spent["decode_s"] += time.perf_counter() - start
        counted["steps"] += 1
        return logits

    def with_rows(policy, prompt_tokens, new_tokens, group_size, rows_in_flight, total_rows):
        return make(policy, prompt_tokens, new_tokens, group_size, args.rows or rows_in_flight, total_rows)

    decoder.admit, decoder.step, sampler.make_decoder = timed_admit, timed_step, with_rows
    config = EvalConfig(problems="humaneval", samples=1, max_new_tokens=args.new_tokens)
    tokens: list[int] = []
    with Sandbox(config.sandbox) as sandbox:
        result = evaluate(
            policy_generator(policy, config),
            problems,
            sandbox,
            config,
            model=args.model,
            on_report=lambda problem, completion, report: tokens.append(len(completion.token_ids)),
        )
    found = {
        "problems": len(problems),
        "generate_s": round(result.generate_s, 1),
        **{name: round(value, 1) for name, value in spent.items()},
        **counted,
        "new_tokens": sum(tokens),
        "new_tokens_per_s": round(sum(tokens) / result.generate_s, 1),
        "grading_s": round(result.execute_s, 1),
        "threads": torch.get_num_threads(),
        "dtype": str(policy.compute_dtype),
        "passed": result.success.value if result.success else None,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(found) if args.json else "\n".join(f"{key:>20}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
