"""How good and how fast judges are, on problems and policies that no training sample came from.

    python benchmarks/judge.py collect --out eval --policy smollm2-135m --policy qwen05=/models/qwen2.5-coder-0.5b-instruct --policy rl=my_model/model
    python benchmarks/judge.py compare --items eval --judge embedded --judge "0.5B zero-shot"=/models/qwen2.5-coder-0.5b-instruct --out figures.json
    python benchmarks/judge.py speed --items eval --threads 2 --out speed.json
    python benchmarks/judge.py card --figures figures.json --speed speed.json --adapter src/rlaif/judge/embedded
    python benchmarks/judge.py memory

collect  samples the TEST problems of --problems with each policy, and makes mutants and rewrites of their references; labels come from every test
compare  AUROC, pair accuracy, ECE and Brier score of each judge, for each policy's samples and for mutants, in all and per difficulty
speed    judgements a second with the shared prefix on and off
memory   what the judge costs beside a policy: its own frozen copy (full-weight training), or none (a LoRA on the same base)
card     writes measured figures into an adapter's judge.json and README.md
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rlaif.config import JudgeConfig, SandboxConfig
from rlaif.judge import JudgeItem, make_judge
from rlaif.judge.calibrate import ece, fit_platt
from rlaif.judge.card import write_card
from rlaif.judge.collect import Candidate, from_references, from_samples, label
from rlaif.judge.constitution import load_constitution
from rlaif.judge.evaluate import figures
from rlaif.judge.labelled import Labelled, read_labelled
from rlaif.judge.local import LocalJudge
from rlaif.judge.speed import measure
from rlaif.judge.store import LabelStore
from rlaif.policy.model import load_policy
from rlaif.policy.sampler import SamplingParams
from rlaif.problems import load_problems
from rlaif.problems.mutate import mutants
from rlaif.problems.split import stable_hash
from rlaif.sandbox import Job, Sandbox
from rlaif.train.rollout import generate
from rlaif.types import DIFFICULTIES, Problem

CHUNK = 16


def collect(options: argparse.Namespace) -> None:
    """One file for mutants and rewrites, one per policy; each is gone on with if it was cut off."""
    problems = load_problems(options.problems, split="test", limit=options.limit)
    with Sandbox(SandboxConfig(timeout_s=3.0)) as sandbox:  # mutants loop for ever more often than not
        made_with = {"per_problem": options.per_problem}
        fill(
            options.out / "mutants.jsonl", made_with, problems, lambda some: from_references(some, mutants, per_problem=options.per_problem), sandbox
        )
        for name, path in map(named, options.policy):
            policy = load_policy(path, trainable=False)
            params = SamplingParams(max_new_tokens=options.max_new_tokens, temperature=options.temperature)

            def complete(some: Sequence[Problem], policy: Any = policy, params: SamplingParams = params) -> list[list[str]]:
                groups = generate(policy, some, options.samples, params, torch.Generator().manual_seed(len(some[0].id)))[2]
                return [[completion.code for completion in group] for group in groups]

            made_with = {"samples": options.samples, "max_new_tokens": options.max_new_tokens, "temperature": options.temperature}
            fill(options.out / f"policy-{name}.jsonl", made_with, problems, lambda some, complete=complete: from_samples(some, complete), sandbox)
            del policy
            gc.collect()


def fill(path: Path, made_with: dict[str, Any], problems: Sequence[Problem], candidates: Any, sandbox: Sandbox) -> None:
    store = LabelStore(path, made_with)
    missing = [problem for problem in problems if problem.id not in store.done]
    for first in range(0, len(missing), CHUNK):
        chunk = missing[first : first + CHUNK]
        found: Iterator[Candidate] = candidates(chunk)
        store.add([problem.id for problem in chunk], label(found, sandbox.run_many, Job))
        print(f"{path.name}: {len(store.done)}/{len(problems)} problems", flush=True)


def compare(options: argparse.Namespace) -> None:
    """Every judge on the same items. Beside its own figures each gets the ECE it would have after Platt's fit on the other half of the problems."""
    # Whole problems in the order of a hash, so that `--most` leaves a fair sample and pairs stay together.
    order = {path: sorted(read_labelled(path), key=lambda item: stable_hash(item.problem.id)) for path in sorted(options.items.glob("*.jsonl"))}
    sets = {path.stem: items[: options.most] for path, items in order.items()}
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name, path in map(named, options.judge):
        judge = judge_of(path)
        start = time.perf_counter()
        found[name] = {"judge": judge.name}
        for part, items in sets.items():
            reports = judge.score([JudgeItem(item.problem, item.code) for item in items])
            scored = [(report.score, item) for report, item in zip(reports, items, strict=True) if report.score is not None]
            levels = {"all": scored} | {
                level: some for level in DIFFICULTIES if (some := [row for row in scored if row[1].problem.difficulty == level])
            }
            found[name][part] = {level: tidy(figures(some)) for level, some in levels.items()}
            found[name][part]["all"] |= {"correct": sum(item.correct for _, item in scored), "unanswered": len(items) - len(scored)}
            found[name][part]["all"]["ece_refitted"] = tidy({"ece": refitted_ece(scored)})["ece"]
            print(name, part, json.dumps(found[name][part]["all"]), flush=True)
        found[name]["seconds"] = round(time.perf_counter() - start, 1)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        del judge
        gc.collect()


def refitted_ece(scored: list[tuple[float, Labelled]]) -> float:
    """ECE if the judge were calibrated on half of these problems and read on the other half, both ways round."""
    halves: list[list[tuple[float, Labelled]]] = [[], []]
    names = sorted({item.problem.id for _, item in scored})
    half_of = {name: index % 2 for index, name in enumerate(names)}
    for row in scored:
        halves[half_of[row[1].problem.id]].append(row)
    if any(len({item.correct for _, item in half}) < 2 for half in halves):
        return float("nan")
    beliefs, labels = [], []
    for fitted, read in (halves, halves[::-1]):
        calibration = fit_platt([score for score, _ in fitted], [item.correct for _, item in fitted])
        beliefs += [calibration.apply(score) for score, _ in read]
        labels += [item.correct for _, item in read]
    return ece(beliefs, labels)


def tidy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value != value else round(value, 4) if isinstance(value, float) else value for key, value in values.items()}


def speed(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    items = [JudgeItem(item.problem, item.code) for path in sorted(options.items.glob("policy-*.jsonl")) for item in read_labelled(path)][
        : options.most
    ]
    judge = judge_of(named(options.judge)[1] if options.judge else "embedded")
    rows = [
        {"judge": judge.name, "threads": options.threads} | measure(judge, items, share_prefix=share)
        for _ in range(options.repeats)
        for share in (True, False)
    ]
    for row in rows:
        print(json.dumps(row))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def memory(options: argparse.Namespace) -> None:
    """Resident memory before and after the judge is made, beside a policy that trains all its weights and beside a LoRA."""
    for rank in (0, 16):
        policy = load_policy("smollm2-135m", lora_rank=rank)
        before = resident()
        judge = make_judge(JudgeConfig(), policy=policy)
        assert isinstance(judge, LocalJudge)
        row = {"policy": f"LoRA of rank {rank}" if rank else "full weights", "judge_shares_the_policys_weights": judge.model is policy.model}
        shared = {id(parameter) for parameter in policy.model.parameters()}
        own = sum(p.numel() * p.element_size() for p in judge.model.parameters() if id(p) not in shared)
        row["judge_own_weights_megabytes"] = round(own / 2**20)
        # Resident memory may grow by less: what loading the policy left behind is used again.
        print(json.dumps(row | {"judge_megabytes": round((resident() - before) / 2**20), "policy_and_rest_megabytes": round(before / 2**20)}))
        del judge, policy
        gc.collect()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def card(options: argparse.Namespace) -> None:
    facts = json.loads((options.adapter / "judge.json").read_text(encoding="utf-8"))
    facts["measured"] = json.loads(options.figures.read_text(encoding="utf-8"))
    if options.speed:
        facts["speed"] = json.loads(options.speed.read_text(encoding="utf-8"))
    write_card(options.adapter, facts, load_constitution())


def judge_of(path: str) -> LocalJudge:
    """`embedded`, an adapter folder, or a model to be asked zero-shot (about correctness alone, as the embedded judge is)."""
    if path == "embedded":
        judge = make_judge(JudgeConfig())
    elif (Path(path) / "adapter_config.json").is_file():
        judge = make_judge(JudgeConfig(kind="local", adapter=Path(path)))
    else:
        policy = load_policy(path, trainable=False)
        policy.model.to(policy.compute_dtype)
        judge = LocalJudge(policy.model, policy.tokenizer, load_constitution(), name=f"{Path(path).name} (zero-shot)", principles=("correctness",))
    assert isinstance(judge, LocalJudge)
    return judge


def named(text: str) -> tuple[str, str]:
    """NAME=PATH, or PATH alone."""
    name, equals, path = text.partition("=")
    return (name, path) if equals else (Path(text).name, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collect", "compare", "speed", "memory", "card"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--policy", action="append", default=[])
    parser.add_argument("--judge", action="append", default=[])
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--per-problem", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--problems", default="builtin")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--most", type=int)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--speed", type=Path)
    parser.add_argument("--adapter", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "speed" and options.judge:
        options.judge = options.judge[0]
    {"collect": collect, "compare": compare, "speed": speed, "memory": memory, "card": card}[options.what](options)


if __name__ == "__main__":
    main()
