"""A model's HumanEval score the way its authors measured it, beside ours: EvalPlus's prompt and token limit, our sampler and sandbox.

    RLAIF_SHARED=<folder with data/humaneval.jsonl> python benchmarks/published_score.py FOLDER --answers answers.jsonl

`rlaif evaluate` puts a problem in words of its own and stops at 256 tokens, and a prompt is worth several points; a score can be compared with
a published one only where the prompt is the published one. Greedy. Writes each answer and its fate to --answers; prints success with its interval.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from rlaif.config import EvalConfig
from rlaif.evals import evaluate
from rlaif.policy.model import Policy, load_policy
from rlaif.policy.sampler import SamplingParams, sample
from rlaif.problems import load_problems
from rlaif.problems.prompting import cut_at_fence
from rlaif.problems.pysource import needed_for
from rlaif.sandbox import Sandbox
from rlaif.types import Completion, Problem

# What EvalPlus asks an instruction-tuned model, and how it opens the answer (evalplus/provider/utility.py).
ASK = "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n```\n{}\n```\n"
OPEN = "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n```python\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--max-new-tokens", type=int, default=768)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--answers", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    path = Path(os.environ["RLAIF_SHARED"], "data", "humaneval.jsonl")
    prompts = {row["task_id"]: row["prompt"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    problems = load_problems(str(path), limit=args.limit)
    policy = load_policy(args.model, trainable=False)
    start = time.perf_counter()
    with Sandbox() as sandbox, args.answers.open("w", encoding="utf-8") as out:

        def keep(problem: Problem, completion: Completion, report: object) -> None:
            passed = bool(getattr(report, "all_passed", False))
            row = {"task_id": problem.id, "passed": passed, "finish_reason": completion.finish_reason, "text": completion.text}
            out.write(json.dumps(row) + "\n")

        config = EvalConfig(problems="humaneval", samples=1, max_new_tokens=args.max_new_tokens)
        result = evaluate(answers(policy, prompts, args.max_new_tokens), problems, sandbox, config, model=args.model, on_report=keep)
    rate = result.success
    print(f"{len(problems)} problems, {100 * rate.value:.1f}% ({100 * rate.low:.1f} to {100 * rate.high:.1f}), {time.perf_counter() - start:.0f} s")


def answers(policy: Policy, prompts: dict[str, str], max_new_tokens: int) -> Callable[[list[Problem], int], list[list[Completion]]]:
    """`evaluate`'s generator: EvalPlus's words, its sanitiser's rule (what the function needs, and nothing below it)."""

    def complete(problems: list[Problem], samples: int) -> list[list[Completion]]:
        ids = []
        for problem in problems:
            chat = [{"role": "user", "content": ASK.format(prompts[problem.id].strip())}]
            text = policy.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + OPEN
            ids.append(policy.tokenizer(text, add_special_tokens=False).input_ids)
        params = SamplingParams(max_new_tokens=max_new_tokens, greedy=True, stop_texts=("\n```",))
        rows = []
        for problem, (one,) in zip(problems, sample(policy, ids, samples, params, torch.Generator()), strict=True):
            text = policy.tokenizer.decode(one.token_ids, skip_special_tokens=True)
            code = needed_for(f"{problem.preamble}\n{cut_at_fence(text)}", problem.entry_point or "")
            rows.append([Completion(problem.id, text, code, tuple(one.token_ids), one.finish_reason)])
        return rows

    return complete


if __name__ == "__main__":
    main()
