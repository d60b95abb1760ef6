"""Five ways from AI feedback to a better policy, at an equal budget of sampled completions, measured by one harness. One seed.

    python benchmarks/preferences.py --out preferences --budget 720

| path | what its budget is spent on |
| direct RLAIF, PPO | every completion is rewarded by tests and judge, PPO (`rlaif train`) |
| canonical RLAIF | half: pairs labelled by tests and judge, a reward model on them; half: PPO with that reward model as its only reward |
| offline DPO | pairs labelled by tests and judge, TRL's DPOTrainer |
| online DPO | best against worst of each group by the reward of direct RLAIF (`rlaif train --algo online_dpo`) |
| revision | a third each: answers, critiques, revisions; supervised steps on the revisions that pass |

A critique and a revision count as sampled completions, whoever writes them. The base model and every result are evaluated on the test split,
4 samples at temperature 0.7, with the same prompts and seed. Run it again with the same --out to go on after an interruption: what is done is kept.
Writes OUT/preferences.json and OUT/preferences.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rlaif.config import EvalConfig, JudgeConfig, SandboxConfig, TrainConfig
from rlaif.errors import RunFailed, UsageError
from rlaif.evals import EvalResult, compare, evaluate
from rlaif.policy.memory import give_back_memory
from rlaif.policy.model import load_policy
from rlaif.problems import load_problems
from rlaif.runs import Console, is_run
from rlaif.runs.environment import collect_environment
from rlaif.sandbox import Sandbox
from rlaif.train.collect_pairs import collect_pairs
from rlaif.train.dpo import require_trl, train_dpo
from rlaif.train.held_out import policy_generator
from rlaif.train.loop import train
from rlaif.train.prefer_config import CollectConfig, DpoConfig, ReviseConfig, RewardModelConfig
from rlaif.train.revision import revise
from rlaif.train.reward_model import train_reward_model

PROBLEMS, ANSWERS = 6, 6
"""In one episode or round, as `rlaif train` has it."""
QUICK = {"eval_limit": 1, "eval_samples": 1}
"""The runs' own evaluations are cut short: this script measures every model itself, once."""

Found = dict[str, Any]


class Bench:
    """One comparison: its flags, its folder, and what is done of it."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags, self.out = flags, flags.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.episodes = max(2, round(flags.budget / (PROBLEMS * ANSWERS)))
        judge = {"kind": flags.judge, "model": flags.judge_model, "base_url": flags.judge_base_url}
        self.judge = JudgeConfig(**{name: value for name, value in judge.items() if value is not None})
        self.common: Found = {"model": flags.model, "seed": flags.seed, "threads": flags.threads}
        self.sets: Found = {"problems": flags.problems}
        self.file = self.out / "preferences.json"
        self.found: Found = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        settings = {"budget": flags.budget, "episodes": self.episodes, "model": flags.model, "seed": flags.seed, "judge": flags.judge}
        settings |= {"problems": flags.problems, "eval_limit": flags.eval_limit}
        if self.found.setdefault("settings", settings) != settings:
            raise SystemExit(f"{self.file} holds a comparison with other settings: {self.found['settings']}. Choose another --out.")
        self.found.setdefault("environment", collect_environment())
        self.found.setdefault("paths", {})
        self.problems = load_problems(flags.problems, split="test", limit=flags.eval_limit)

    def run(self, name: str, path: Callable[[], Found]) -> None:
        """Take one path, measure what came of it, and write it down; a path that is there is not taken again."""
        if name in self.found["paths"] or (self.flags.only and name not in self.flags.only.split(",")):
            return
        print(f"\n=== {name} ===", flush=True)
        start = time.perf_counter()
        try:
            row = path()
        except (RunFailed, UsageError) as error:  # nothing to learn from, no pair that is sure: a result too
            row = {"model": None, "note": str(error.what) + (f": {error.why}" if error.why else "")}
        row["wall_s"] = time.perf_counter() - start
        give_back_memory()
        if row["model"] is not None:
            row["evaluation"] = self.measure(row["model"]).to_dict()
        self.found["paths"][name] = row
        self.write()

    def measure(self, model: str) -> EvalResult:
        """The one protocol for all."""
        config = EvalConfig(
            problems="builtin", samples=4, temperature=0.7, max_new_tokens=64, seed=self.flags.seed, sandbox=SandboxConfig(timeout_s=3)
        )
        policy = load_policy(model, trainable=False)
        with Sandbox(config.sandbox) as sandbox:
            result = evaluate(policy_generator(policy, config), self.problems, sandbox, config, model=Path(model).name)
        print(f"{model}: {result.success}", flush=True)
        return result

    def folder(self, name: str) -> Found:
        """Flags of a run in its place: gone on with, if it was begun."""
        return {"output_dir": self.out / name, "resume": is_run(self.out / name)}

    # -- the paths -------------------------------------------------------------------------------------------------------------------

    def trained(self, name: str, episodes: int, **changes: Any) -> Found:
        """A run of `rlaif train`."""
        config = TrainConfig(**{"judge": self.judge, **self.common, **self.sets, **QUICK, **self.folder(name), "episodes": episodes, **changes})
        result = train(config, console=Console(live=False))
        return {"model": str(result.path), "sampled": episodes * PROBLEMS * ANSWERS}

    def collected(self, rounds: int) -> Found:
        """Pairs of the first `rounds` rounds; a second call adds rounds to what is there."""
        folder = self.folder("pairs")
        done = collect_pairs(CollectConfig(**self.common, **self.sets, **folder, rounds=rounds, judge=self.judge), console=Console(live=False))
        return {"pairs": done.path, "sampled": done.summary["samples"], "labels": done.summary}

    def canonical(self) -> Found:
        half = self.episodes // 2
        labels = self.collected(half)
        rewards = self.out / "reward_model"
        if not (rewards / "reward_model" / "reward_model.json").exists():
            settings = RewardModelConfig(**self.common, **self.folder("reward_model"), preferences=labels["pairs"])
            train_reward_model(settings, console=Console(live=False))
        figures = json.loads((rewards / "summary.json").read_text(encoding="utf-8"))["figures"]
        judge = JudgeConfig(kind="reward_model", model=str(rewards))
        row = self.trained("canonical", self.episodes - half, feedback="ai", judge=judge)
        row["sampled"] += labels["sampled"]
        return row | {"labels": labels["labels"], "reward_model": figures}

    def offline_dpo(self) -> Found:
        labels = self.collected(self.episodes)
        config = DpoConfig(**self.common, **self.sets, **QUICK, **self.folder("dpo"), preferences=labels["pairs"])
        result = train_dpo(config, console=Console(live=False))
        return {"model": str(result.path), "sampled": labels["sampled"], "labels": labels["labels"], "pairs": result.pairs}

    def revised(self) -> Found:
        config = ReviseConfig(
            **self.common,
            **self.sets,
            **QUICK,
            **self.folder("revised"),
            rounds=self.episodes,
            batch_size=PROBLEMS,
            group_size=ANSWERS // 3,
            judge=self.judge,
        )
        result = revise(config, console=Console(live=False))
        return {"model": str(result.path), "sampled": result.summary["samples"], "revision": result.summary}

    # -- the table -------------------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """JSON and the table, after every path."""
        rows = self.found["paths"]
        base = EvalResult.from_dict(rows["base"]["evaluation"]) if "base" in rows else None
        for name, row in rows.items():
            if name != "base" and base is not None and row.get("evaluation"):
                comparison = compare(base, EvalResult.from_dict(row["evaluation"]))
                row["comparison"] = asdict(comparison.overall) | {"settled": comparison.overall.settled}
        self.file.write_text(json.dumps(self.found, indent=1, default=str) + "\n", encoding="utf-8")
        (self.out / "preferences.md").write_text("\n".join(self.table(base)) + "\n", encoding="utf-8")

    def table(self, base: EvalResult | None) -> list[str]:
        settings, machine = self.found["settings"], self.found["environment"]["machine"]
        lines = [f"{settings['model']}, problems {settings['problems']}, budget {settings['budget']}, seed {settings['seed']} (one seed), "]
        lines[0] += f"judge {settings['judge']}; "
        lines[0] += f"{machine['cpu']}, {machine['cores']} cores. Held out: {len(self.problems)} problems, 4 samples at temperature 0.7."
        lines += ["", "| path | sampled | success (95% interval) | difference to base (95% interval, paired) | better, worse | p | minutes |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for name, row in self.found["paths"].items():
            success = EvalResult.from_dict(row["evaluation"]).success if row.get("evaluation") else None
            change = row.get("comparison")
            gap = change and change["difference"]
            cells = [name, str(row.get("sampled", "")), str(success) if success else row.get("note", "")]
            cells.append(f"{100 * gap['value']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})" if gap else "")
            cells += [f"{change['wins']}, {change['losses']}", f"{change['p_value']:.3g}"] if change else ["", ""]
            lines.append("| " + " | ".join([*cells, f"{row['wall_s'] / 60:.1f}"]) + " |")
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=720, help="sampled completions for each path; rounded to whole episodes of 36")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--problems", default=TrainConfig.model_fields["problems"].default, help="its train split to learn from, its test split to measure on"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-limit", type=int, default=None, help="held-out problems; default: all of the test split")
    parser.add_argument("--judge", default="embedded", choices=["embedded", "local", "api"])
    parser.add_argument("--judge-model")
    parser.add_argument("--judge-base-url")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", help="some of base,direct,canonical,dpo,online_dpo,revision, with commas")
    flags = parser.parse_args()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    require_trl()
    bench = Bench(flags)
    bench.run("base", lambda: {"model": flags.model, "sampled": 0})
    bench.run("direct", lambda: bench.trained("direct", bench.episodes))
    bench.run("canonical", bench.canonical)
    bench.run("dpo", bench.offline_dpo)
    bench.run("online_dpo", lambda: bench.trained("online_dpo", bench.episodes, algo="online_dpo"))
    bench.run("revision", bench.revised)
    print("\n" + (bench.out / "preferences.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
