"""Measure how often a model passes each built-in problem: where a curriculum should start looking, and whether difficulty labels are true.

    python benchmarks/pass_rates.py --model smollm2-135m --all --out src/rlaif/problems/data/pass_rates.json
    python benchmarks/pass_rates.py --model FOLDER --name qwen2.5-coder-0.5b-instruct --all --samples 4 --threads 1 --out ...

Samples at temperature 0.7, at most 64 tokens (--max_new_tokens), graded and held-out tests. The file holds the rates of several models;
it is written after every 16 problems, and a second call with the same arguments goes on where the first one stopped. --fresh measures all
anew. Prints the time, how many problems are within reach and the mean by difficulty.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

import torch

from rlaif.policy.model import load_policy
from rlaif.policy.sampler import SamplingParams
from rlaif.problems import load_problems
from rlaif.problems.split import stable_hash
from rlaif.sandbox import Job, Sandbox
from rlaif.train.rollout import generate

CHUNK = 16
"""Problems sampled together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--name", help="what the file calls it (default: --model)")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--split", default="train", choices=("train", "test"))
    parser.add_argument("--all", action="store_true", help="both splits")
    parser.add_argument("--difficulty", default="intro,easy,medium,hard")
    parser.add_argument("--limit", type=int, help="at most so many problems in this call")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--fresh", action="store_true", help="forget this model's earlier rates")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    name = arguments.name or arguments.model
    rule = {"samples": arguments.samples, "temperature": 0.7, "max_new_tokens": arguments.max_new_tokens}
    wanted = [
        one for one in load_problems("builtin", split=None if arguments.all else arguments.split) if one.difficulty in arguments.difficulty.split(",")
    ]
    known = {} if arguments.fresh else read(arguments.out).get(name, {})
    if known and {key: known.get(key, value) for key, value in rule.items()} != rule:
        raise SystemExit(f"{arguments.out} holds rates of {name} by another rule ({known['samples']} samples): --fresh, or the same arguments")
    rates: dict[str, float] = known.get("rates", {})
    left = [one for one in wanted if one.id not in rates][: arguments.limit]
    print(f"{name}: {len(left)} problems to measure, {len(wanted) - len(left)} done or put off", flush=True)
    policy = load_policy(arguments.model, trainable=False)
    params = SamplingParams(max_new_tokens=arguments.max_new_tokens, temperature=0.7)
    start = time.perf_counter()
    with Sandbox() as sandbox:
        for first in range(0, len(left), CHUNK):
            chunk = left[first : first + CHUNK]
            generator = torch.Generator().manual_seed(stable_hash(chunk[0].id) % 2**31)  # not the same draws after a restart
            completions = generate(policy, chunk, arguments.samples, params, generator)[2]
            jobs = [Job(one, row.code, ("graded", "held_out")) for one, group in zip(chunk, completions, strict=True) for row in group]
            passed = Counter(job.problem.id for job, report in zip(jobs, sandbox.run_many(jobs), strict=True) if report.all_passed)
            rates |= {one.id: passed[one.id] / arguments.samples for one in chunk}
            write(arguments.out, name, rule | {"rates": dict(sorted(rates.items()))})
            print(f"{first + len(chunk)}/{len(left)} problems, {time.perf_counter() - start:.0f} s", flush=True)
    for level in ("intro", "easy", "medium", "hard"):
        found = [rates[one.id] for one in wanted if one.difficulty == level and one.id in rates]
        if found:
            print(f"{level}: {len(found)} problems, mean {fmean(found):.1%}, {sum(rate > 0 for rate in found)} solved at least once")


def read(path: Path) -> dict[str, dict]:
    """By model."""
    return json.loads(path.read_text(encoding="utf-8"))["models"] if path.exists() else {}


def write(path: Path, name: str, found: dict) -> None:
    """One model's rates; those of the others are read again, for they may be measured at the same time."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps({"models": read(path) | {name: found}}, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main()
