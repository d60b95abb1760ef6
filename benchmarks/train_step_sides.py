"""The two sides of train_step.py, each run in a process of its own: waits for a line on standard input, takes a step, reports it as JSON."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import resource
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rlaif.config import TrainConfig
from rlaif.problems import load_problems
from rlaif.problems.prompting import build_prompt
from rlaif.types import Feedback, Problem

MARK = "@@ "
PROTOCOL = sys.stdout


def say(**values: Any) -> None:
    PROTOCOL.write(MARK + json.dumps(values) + "\n")
    PROTOCOL.flush()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reward_of(text: str) -> float:
    return zlib.crc32(text.encode()) % 9973 / 9972


def problems(count: int) -> list[Problem]:
    """`count` of the built-in training problems, without tests: the hash is the reward."""
    import dataclasses

    found = load_problems("builtin", split="train")
    chosen = [found[i % len(found)] for i in range(count)]
    return [dataclasses.replace(problem, id=f"{problem.id}-{i}", tests=problem.tests_of("shown")) for i, problem in enumerate(chosen)]


class HashEngine:
    judge = None

    def score(self, problems: Any, codes: list[str]) -> list[Feedback]:
        return [Feedback(reward_of(code), "scored") for code in codes]


# -- ours ----------------------------------------------------------------------------------------------------------------------------


def ours(args: argparse.Namespace) -> None:
    from rlaif.algos.recipes import recipe_for
    from rlaif.problems.curriculum import Curriculum
    from rlaif.runs import Console, RunDir
    from rlaif.train import loop, rollout
    from rlaif.train.interrupts import InterruptGuard
    from rlaif.train.journal import FeedbackJournal
    from rlaif.train.monitor import Monitor
    from rlaif.train.setup import ProblemSets, build_policy
    from rlaif.train.update import build_optimizer

    folder = Path(tempfile.mkdtemp(prefix="rlaif-bench-"))
    config = TrainConfig(
        model=args.model,
        algo="grpo",
        batch_size=args.prompts,
        group_size=args.group,
        max_new_tokens=args.new_tokens,
        temperature=1.0,
        learning_rate=1e-6,
        dtype=args.dtype,
        threads=args.threads,
        micro_batch_tokens=args.micro_batch_tokens,
        feedback="ai",
        curriculum=False,
        output_dir=folder / "run",
    )
    policy = build_policy(config, value_head=recipe_for("grpo").critic)
    policy.stop_token_ids = frozenset()
    build = rollout.build_prompt
    import dataclasses

    rollout.build_prompt = lambda *a: dataclasses.replace(build(*a), stop_texts=())
    chosen = problems(args.prompts)
    run = RunDir.create(config.output_dir)
    session = loop.Session(
        config,
        run,
        Console(file=open(os.devnull, "w"), live=False),  # noqa: SIM115
        policy,
        None,
        HashEngine(),
        ProblemSets(chosen, [], {}),
        build_optimizer(policy, config),
        Curriculum(chosen, seed=0, uniform=True),
        Monitor(),
        FeedbackJournal(run.path / "journal.jsonl"),
        InterruptGuard(),
        torch.Generator().manual_seed(0),
    )
    timed: dict[str, float] = {}
    collect = loop.collect

    def collected(*a: Any) -> Any:
        batch = collect(*a)
        timed["tokens"] = sum(len(one.token_ids) for group in batch.samples for one in group)
        timed["sample_s"] = batch.sample_s
        timed["traced"] = batch.trace is not None and batch.trace.ready
        return batch

    loop.collect = collected
    say(ready=True)
    with session.guard:
        for episode, line in enumerate(sys.stdin, start=1):
            profile = line.strip() == "profile"
            with parts(policy) if profile else contextlib.nullcontext({}) as seconds:
                start = time.perf_counter()
                metrics = loop.run_episode(session, episode)
                step_s = time.perf_counter() - start
            assert metrics["steps"] == 1 and metrics["skipped_group_share"] == 0
            report = {"step_s": step_s, "update_s": metrics["update_s"], "peak_bytes": peak_bytes()} | timed
            if profile:
                report["text"] = table(seconds, report, policy, args.micro_batch_tokens)
            say(**report)


@contextlib.contextmanager
def parts(policy: Any) -> Iterator[dict[str, float]]:
    """Seconds spent in the named functions of one step (outer ones include inner ones)."""
    from rlaif.policy import decoders, fused, head, logps, sampler
    from rlaif.train import update as update_module

    seconds: dict[str, float] = defaultdict(float)
    undo = []

    def time_it(owner: Any, name: str, label: str) -> None:
        original = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
        function = original.__func__ if isinstance(original, staticmethod) else original

        @functools.wraps(function)
        def timed(*a: Any, **k: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*a, **k)
            finally:
                seconds[label] += time.perf_counter() - start

        setattr(owner, name, staticmethod(timed) if isinstance(original, staticmethod) else timed)
        undo.append((owner, name, original))

    decoder = fused.FusedDecoder if fused.can_fuse(policy) else decoders.HFDecoder
    if decoder is fused.FusedDecoder:
        time_it(fused.FusedWeights, "refresh", "sampling: weights into the sampler's type and layout")
        time_it(fused.FusedWeights, "logits", "sampling: LM head")
    time_it(decoder, "admit", "sampling: prefill")
    time_it(decoder, "step", "sampling: decode steps (LM head of both included)")
    time_it(sampler, "choose", "sampling: choosing tokens")
    time_it(logps, "hidden_states", "update: forward, layers")
    time_it(logps, "token_logps", "update: forward, LM head and log-probabilities")
    time_it(head._LinearLogps, "backward", "update: backward, LM head")
    time_it(torch.Tensor, "backward", "update: backward, all")
    time_it(update_module, "_step", "update: clip and AdamW")
    try:
        yield seconds
    finally:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)


def table(seconds: dict[str, float], report: dict[str, Any], policy: Any, rows: int) -> str:
    lines = [
        f"{'whole step':60}{report['step_s']:8.2f} s",
        f"{'sampling':60}{report['sample_s']:8.2f} s",
        f"{'update':60}{report['update_s']:8.2f} s",
    ]
    lines += [f"    {label:56}{value:8.2f} s" for label, value in sorted(seconds.items())]
    compute, single = ceiling(policy, policy.compute_dtype, rows), ceiling(policy, torch.float32, rows)
    # backward twice the products and forward once, the layers' only where sampling did not leave them; the head's forward in float32
    passes = 2 if report["traced"] else 3
    least = report["tokens"] * (passes * compute["layers_s"] + 2 * compute["head_s"] + single["head_s"]) / rows
    lines.append(f"matrix products of these shapes, {rows} rows: {compute['gflop_per_s']:.0f} GFLOP/s, in float32 {single['gflop_per_s']:.0f}")
    lines.append(f"the update's matrix products alone, at that rate and without the prompts: {least:.2f} s")
    return "\n".join(lines)


@torch.no_grad()
def ceiling(policy: Any, dtype: torch.dtype, rows: int) -> dict[str, float]:
    """Seconds for one forward pass of `rows` tokens through the matrix products of all layers and of the head, best of 5, and the rate of both."""

    def seconds(shapes: list[tuple[int, int]]) -> float:
        pairs = [(torch.randn(rows, i, dtype=dtype), torch.randn(o, i, dtype=dtype)) for o, i in shapes]
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for x, w in pairs:
                torch.nn.functional.linear(x, w)
            best = min(best, time.perf_counter() - start)
        return best

    layer = [tuple(p.shape) for n, p in policy.base.named_parameters() if p.ndim == 2 and ".layers.0." in n]
    head = tuple(policy.base.get_output_embeddings().weight.shape)
    layers_s, head_s = policy.config.num_hidden_layers * seconds(layer), seconds([head])
    flop = 2 * rows * (policy.config.num_hidden_layers * sum(o * i for o, i in layer) + head[0] * head[1])
    return {"layers_s": layers_s, "head_s": head_s, "gflop_per_s": flop / (layers_s + head_s) / 1e9}


# -- TRL -----------------------------------------------------------------------------------------------------------------------------


def trl(args: argparse.Namespace) -> None:
    from datasets import Dataset
    from train_step import TRL_SETTINGS
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from rlaif.policy.memory import keep_freed_memory
    from rlaif.policy.weights import resolve_weights

    folder = resolve_weights(args.model)
    options = dict(TRL_SETTINGS[args.dtype][args.setting])
    if options.pop("keep_memory", False):
        keep_freed_memory()
    rows = args.prompts * args.group
    micro = options.pop("per_device_train_batch_size") or rows
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.pop("weights")))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [build_prompt(problem, tokenizer).text for problem in problems(args.prompts)]
    timed: dict[str, float] = {}

    class Timed(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            start = time.perf_counter()
            output = super()._generate_and_score_completions(inputs)
            timed["sample_s"] = time.perf_counter() - start
            timed["tokens"] = int(output["completion_mask"].sum())
            return output

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not sys.stdin.readline():
                os._exit(0)
            timed["start"] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            step_s = time.perf_counter() - timed["start"]
            say(step_s=step_s, sample_s=timed["sample_s"], update_s=step_s - timed["sample_s"], tokens=timed["tokens"], peak_bytes=peak_bytes())

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="trl-bench-"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows // micro,
        num_generations=args.group,
        max_completion_length=args.new_tokens,
        max_steps=1000,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        temperature=1.0,
        beta=0.0,
        loss_type="grpo",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        generation_kwargs={"min_new_tokens": args.new_tokens},
        optim="adamw_torch_fused",
        **({"bf16": False, "gradient_checkpointing": False} | options),
    )
    trainer = Timed(
        model=model,
        args=config,
        reward_funcs=lambda completions, **_: [reward_of(text) for text in completions],
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        processing_class=tokenizer,
        callbacks=[Turns()],
    )
    say(ready=True)
    trainer.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "trl"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--setting", default="")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=80)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sys.stdout = sys.stderr  # whatever a library prints must not get between the protocol's lines
    {"ours": ours, "trl": trl}[args.side](args)


if __name__ == "__main__":
    main()
