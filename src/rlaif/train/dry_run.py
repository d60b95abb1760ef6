"""`--dry-run`: check everything that can be checked without training, and say what the run would do and cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.algos.recipes import recipe_for
from rlaif.config import TrainConfig
from rlaif.errors import UsageError
from rlaif.policy.weights import resolve_weights
from rlaif.runs import Console, RunDir, is_run
from rlaif.sandbox import Sandbox
from rlaif.train.samples import as_facts, cost_in_words, judge_call, policy_prompt
from rlaif.train.setup import ProblemSets

_BYTES_PER_WEIGHT_TRAINED = 4 + 4 + 8 + 2
"""float32 weight and gradient, two moments, and the bf16 copy that computes."""


def describe(config: TrainConfig, problems: ProblemSets, sandbox: Sandbox, console: Console) -> dict[str, Any]:
    """Resolve and validate, print, and return the same as a mapping. Raises what the real run would raise at its start."""
    folder = config.output_dir
    if config.resume and (folder is None or not is_run(folder)):
        raise UsageError("--resume needs the folder of a run", f"{folder} is none", "--output_dir with the run's folder")
    if folder is not None and folder.exists() and any(folder.iterdir()) and not (config.resume or config.overwrite):
        raise UsageError(f"The folder {folder} exists and is not empty", "", "--resume, --overwrite, or another --output_dir")
    weights = resolve_weights(config.model)
    left = max(0, config.episodes - _finished(config))
    samples = left * config.batch_size * config.group_size
    calls = 0 if config.feedback == "execution" or config.judge.kind == "none" else samples
    facts = {
        "model": str(weights),
        "parameters": count_parameters(weights),
        "train_problems": len(problems.train),
        "held_out_problems": len(problems.held_out),
        "overlap": problems.overlap.to_dict(),
        "samples": samples,
        "judge_calls_at_most": calls,
        "sandbox": sandbox.grade,
        "memory_bytes_estimate": estimate_memory_bytes(config, weights),
    }
    sample = problems.train[0]
    prompt, call = policy_prompt(sample, weights), judge_call(sample, config, weights)
    facts |= as_facts(prompt, call, calls)
    console.message(f"Dry run of {config.episodes} episodes of {config.algo.upper()} with {config.model}: nothing is trained.")
    console.message(f"  train on: {problems.in_words()}; {len(problems.held_out)} held out")
    for line in problems.overlap_lines(config):
        console.message(f"            {line}")
    if left < config.episodes:
        console.message(f"  resumes:  {folder}, with its own settings: {left} episodes are left")
    console.message(f"  samples:  {samples} ({left} episodes × {config.batch_size} problems × {config.group_size} answers)")
    console.message(f"  judge:    {cost_in_words(call, calls, config.judge) if call else 'none is asked'}")
    console.message(f"  memory:   about {facts['memory_bytes_estimate'] / 2**30:.1f} GiB; sandbox grade {sandbox.grade}")
    console.message(f"\nA prompt as the policy reads it ({sample.id}, {prompt[1]} tokens):\n{_indented(prompt[0])}")
    if call is not None:
        console.message(f"\nWhat the judge is asked about that problem's reference solution ({call.prompt_tokens} tokens):\n{_indented(call.text)}")
    return facts


def _finished(config: TrainConfig) -> int:
    """Episodes that a resumed run has behind it, by its own account."""
    return int(RunDir.open(config.output_dir).read_json("status.json").get("episode", 0)) if config.resume and config.output_dir else 0


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def count_parameters(folder: Path) -> int:
    """Weights in a model folder, from the headers of its safetensors files alone."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                count = 1
                for size in entry["shape"]:
                    count *= size
                total += count
    return total


def estimate_memory_bytes(config: TrainConfig, folder: Path) -> int:
    """Weights, gradients and moments, and activations of one micro-batch; measured runs lie within about a quarter of it."""
    weights = count_parameters(folder)
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden = model.get("hidden_size") or model.get("n_embd") or model.get("d_model") or 768
    layers = model.get("num_hidden_layers") or model.get("n_layer") or model.get("num_layers") or 12
    trained = weights * (_BYTES_PER_WEIGHT_TRAINED if config.lora_rank == 0 else 6)
    reference = 2 * weights if config.kl_coef > 0 and config.lora_rank == 0 else 0
    per_token = hidden * (2 if config.gradient_checkpointing else 34) * layers * 2
    critic = 4 * hidden if recipe_for(config.algo).critic else 0
    return int(trained + reference + config.micro_batch_tokens * per_token + critic + 600 * 2**20)
