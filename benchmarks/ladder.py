"""The ladder: how much of the lift each ingredient explains, on one problem set, with one evaluation.

    python benchmarks/ladder.py --out ladder --seed 0
    python benchmarks/ladder.py --out ladder --seed 0 --rungs sft,execution,hybrid,ai
    python benchmarks/ladder.py --merge ladder-0/ladder.json ladder-1/ladder.json      # one table of several seeds

Every rung starts from the untrained model and learns from as many answers: `sft` (supervised steps on reference solutions), `rejection` (RAFT),
`execution`, `ai`, `naive` (the plain mean of the share of tests passed and the judge's score, for every program), `hybrid`, `grpo`, `trl` (TRL's
GRPOTrainer with the reward of `execution`; needs trl). Settings are those of recipes/default.toml without its warm start; `default` is that
recipe whole, which is `hybrid` after 48 steps of `sft`. Each is a run folder under --out; one that is finished is not done again. The table is
OUT/ladder.md, its numbers OUT/ladder.json; with --rungs two halves can run side by side into folders of their own.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from rlaif.config import TrainConfig
from rlaif.evals import EvalResult, compare
from rlaif.policy.model import Policy, load_policy
from rlaif.problems import load_problems
from rlaif.rewards.engine import RewardEngine
from rlaif.runs import Console, RunDir
from rlaif.sandbox import Sandbox
from rlaif.train import loop
from rlaif.train.held_out import evaluate_held_out
from rlaif.train.warm_start import warm_start
from rlaif.types import Feedback, Problem

RUNGS: dict[str, dict[str, Any]] = {
    "sft": {},
    "rejection": {"algo": "raft", "feedback": "execution"},
    "execution": {"feedback": "execution"},
    "ai": {"feedback": "ai"},
    "naive": {},
    "hybrid": {},
    "default": {},
    "grpo": {"algo": "grpo"},
    "trl": {},
}
RECIPE = Path(__file__).parents[1] / "recipes" / "default.toml"


class NaiveMix(RewardEngine):
    """What is done without a gate: tests and judge simply averaged, so that a pleasing wrong program is paid."""

    def score(self, problems: Sequence[Problem], codes: Sequence[str]) -> list[Feedback]:
        return [self._mixed(one) for one in super().score(problems, codes)]

    @staticmethod
    def _mixed(one: Feedback) -> Feedback:
        if one.reward is None or one.tests is None or one.tests.total == 0:
            return one
        share = one.tests.passed / one.tests.total
        score = one.judge.score if one.judge is not None and one.judge.score is not None else 0.0
        return replace(one, reward=0.5 * share + 0.5 * score)


def run_rl(name: str, config: TrainConfig, known: dict[str, Any] | None) -> None:
    """One rung through the real loop. known: the evaluation of the untrained model; the same weights, prompts and seed answer the same."""
    build, evaluate = loop.build_engine, loop.Session.evaluate

    def once(session: loop.Session, when: str) -> EvalResult:
        if when != "before" or known is None:
            return evaluate(session, when)
        session.run.write_evaluation(when, known)
        return EvalResult.from_dict(known)

    loop.Session.evaluate = once
    if name == "naive":
        loop.build_engine = lambda config, sandbox, judge, hooks: NaiveMix(sandbox, judge, "hybrid")
    try:
        loop.train(config, console=Console(live=False))
    finally:
        loop.build_engine, loop.Session.evaluate = build, evaluate


def supervised(config: TrainConfig, folder: Path, train: list[Problem]) -> Policy:
    """The base after `sft_steps` steps."""
    torch.manual_seed(config.seed)
    policy = load_policy(config.model, device=config.device, dtype=config.dtype)
    warm_start(policy, train, config, torch.Generator().manual_seed(config.seed), lambda step, loss: None)
    policy.save(folder / "model")
    return load_policy(str(folder / "model"), device=config.device, dtype=config.dtype, trainable=False)


def outside_rl(config: TrainConfig, learn: Callable[[TrainConfig, Path, list[Problem]], Policy], known: dict[str, Any] | None) -> None:
    """A control that is no RL run of ours, evaluated before and after exactly as those are."""
    console = Console(live=False)
    run = RunDir.create(config.output_dir, overwrite=True)
    run.write_config(config)
    held_out = load_problems(config.problems, split="test", limit=config.eval_limit)
    with Sandbox(config.sandbox) as sandbox:
        if known is None:
            base = load_policy(config.model, device=config.device, dtype=config.dtype, trainable=False)
            evaluate_held_out("before", config, base, held_out, sandbox, run, console)
            del base
        else:
            run.write_evaluation("before", known)
        start = time.perf_counter()
        policy = learn(config, run.path, load_problems(config.problems, split="train"))
        print(f"learning took {time.perf_counter() - start:.0f} s", flush=True)
        evaluate_held_out("after", config, policy, held_out, sandbox, run, console)
    run.write_status("done", config.episodes, config.episodes)
    run.close()


def with_trl(config: TrainConfig, folder: Path, train: list[Problem]) -> Policy:
    """TRL's GRPOTrainer: same prompts, completions per episode, episodes, learning rate and temperature; our reward."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from rlaif.policy.weights import resolve_weights
    from rlaif.problems.prompting import build_prompt, extract_code

    source = str(resolve_weights(config.model))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    by_id = {problem.id: problem for problem in train}
    prompts = {name: build_prompt(problem, tokenizer) for name, problem in by_id.items()}
    rows = Dataset.from_list([{"prompt": prompts[name].text, "problem_id": name} for name in by_id])
    with Sandbox(config.sandbox) as sandbox:
        engine = RewardEngine(sandbox, None, "execution")

        def reward(completions: list[str], problem_id: list[str], **_: Any) -> list[float | None]:
            problems = [by_id[name] for name in problem_id]
            codes = [extract_code(problem, prompts[problem.id], text) for problem, text in zip(problems, completions, strict=True)]
            return [one.reward for one in engine.score(problems, codes)]

        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=rows,
            reward_funcs=[reward],
            args=GRPOConfig(
                output_dir=str(folder / "trl"),
                learning_rate=config.learning_rate,
                lr_scheduler_type=config.learning_rate_schedule,
                per_device_train_batch_size=config.batch_size * config.group_size,
                num_generations=config.group_size,
                max_completion_length=config.max_new_tokens,
                max_steps=config.episodes,
                temperature=config.temperature,
                beta=0.0,
                bf16=True,
                use_cpu=not torch.cuda.is_available(),
                report_to=[],
                save_strategy="no",
                logging_steps=1,
                seed=config.seed,
            ),
        )
        trainer.train()
    trainer.model.save_pretrained(folder / "trl_model")
    tokenizer.save_pretrained(folder / "trl_model")
    return load_policy(str(folder / "trl_model"), device=config.device, dtype=config.dtype, trainable=False)


def climb(name: str, config: TrainConfig, known: dict[str, Any] | None) -> None:
    """One rung. known: the evaluation of the untrained model, once there is one."""
    match name:
        case "sft":
            answers = config.episodes * config.batch_size * config.group_size
            outside_rl(config.model_copy(update={"sft_steps": answers // config.sft_batch_size}), supervised, known)
        case "trl":
            outside_rl(config, with_trl, known)
        case _:
            run_rl(name, config, known)


def row(name: str, folder: Path) -> dict[str, Any]:
    """A finished rung's numbers."""
    found = {when: EvalResult.from_dict(result) for when, result in RunDir.open(folder).evaluations().items()}
    lift = compare(found["before"], found["after"]).overall
    return {
        "rung": name,
        "base": found["before"].success.value,
        "after": found["after"].success.value,
        "problems": len(found["after"].rows),
        "lift": lift.difference.value,
        "low": lift.difference.low,
        "high": lift.difference.high,
        "better": lift.wins,
        "worse": lift.losses,
        "p_value": lift.p_value,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| rung | held-out success | over the base (95% interval, paired) | better, worse | sign test |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in rows:
        lift = f"{100 * one['lift']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
        lines.append(f"| {one['rung']} | {one['after']:.1%} | {lift} | {one['better']}, {one['worse']} | p = {one['p_value']:.2g} |")
    return "\n".join(lines) + "\n"


def merged(tables: list[list[dict[str, Any]]]) -> str:
    """Each rung's lift in each seed with its interval, and the mean of the seeds that have it."""
    lines = ["| rung | " + " | ".join(f"run {i + 1}" for i in range(len(tables))) + " | mean |", "| --- |" + " --- |" * (len(tables) + 1)]
    by_rung = [{one["rung"]: one for one in rows} for rows in tables]
    for name in (name for name in RUNGS if any(name in rungs for rungs in by_rung)):
        found = [rungs.get(name) for rungs in by_rung]
        cells = [f"{100 * one['lift']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})" if one else "" for one in found]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {100 * fmean(one['lift'] for one in found if one):+.1f} |")
    base = [f"{rows[0]['base']:.1%}" for rows in tables]
    return f"Untrained: {', '.join(base)}\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--merge", type=Path, nargs="+", help="ladder.json of finished ladders: print one table and do nothing else")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=TrainConfig().episodes)
    parser.add_argument("--eval-limit", type=int, default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rungs", default=",".join(RUNGS))
    arguments = parser.parse_args()
    if arguments.merge:
        print(merged([json.loads(path.read_text(encoding="utf-8")) for path in arguments.merge]))
        return
    if arguments.out is None:
        parser.error("--out is needed, or --merge")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    shared = {"overwrite": True, "seed": arguments.seed, "episodes": arguments.episodes, "eval_limit": arguments.eval_limit}
    known: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = []
    for name in arguments.rungs.split(","):
        own = {"output_dir": arguments.out / f"{name}-{arguments.seed}"} | RUNGS[name] | ({} if name == "default" else {"sft_steps": 0})
        config = TrainConfig.model_validate(recipe | shared | own)
        status = config.output_dir / "status.json"
        if not status.exists() or json.loads(status.read_text(encoding="utf-8"))["state"] != "done":
            start = time.perf_counter()
            climb(name, config, known)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        known = known or RunDir.open(config.output_dir).evaluations()["before"]
        rows.append(row(name, config.output_dir))
        (arguments.out / "ladder.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (arguments.out / "ladder.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
