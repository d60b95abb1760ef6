"""Measure how often a model passes each built-in training problem: where a curriculum should start looking.

    python benchmarks/pass_rates.py --model smollm2-135m --samples 4 --difficulty easy --out src/rlaif/problems/data/pass_rates.json

Samples at temperature 0.7, at most 64 tokens, graded and held-out tests. Prints the time and how many problems are within reach.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch

from rlaif.policy.model import load_policy
from rlaif.policy.sampler import SamplingParams
from rlaif.problems import load_problems
from rlaif.sandbox import Job, Sandbox
from rlaif.train.rollout import generate

CHUNK = 16
"""Problems sampled together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--difficulty", default="easy,medium,hard")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    problems = [problem for problem in load_problems("builtin", split="train") if problem.difficulty in arguments.difficulty.split(",")]
    policy = load_policy(arguments.model, trainable=False)
    generator = torch.Generator().manual_seed(0)
    params = SamplingParams(max_new_tokens=64, temperature=0.7)
    rates: dict[str, float] = {}
    start = time.perf_counter()
    with Sandbox() as sandbox:
        for first in range(0, len(problems), CHUNK):
            chunk = problems[first : first + CHUNK]
            completions = generate(policy, chunk, arguments.samples, params, generator)[2]
            jobs = [Job(problem, one.code, ("graded", "held_out")) for problem, group in zip(chunk, completions, strict=True) for one in group]
            for job, report in zip(jobs, sandbox.run_many(jobs), strict=True):
                rates[job.problem.id] = rates.get(job.problem.id, 0.0) + report.all_passed / arguments.samples
            print(f"{len(rates)}/{len(problems)} problems, {time.perf_counter() - start:.0f} s", flush=True)
            content = {"model": arguments.model, "samples": arguments.samples, "rates": dict(sorted(rates.items()))}
            arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(sorted(Counter(rates.values()).items()))


if __name__ == "__main__":
    main()
