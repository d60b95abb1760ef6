"""One training run measured on problems that are neither trained on nor in the test split: what settings are chosen by.

    python benchmarks/tune.py --out tune.jsonl ppo_lr4 learning_rate=4e-5
    python benchmarks/tune.py --out tune.jsonl sft_ppo sft_steps=40 --device cuda

Held out: the validation split and 110 training problems chosen by a hash of their ids, which leave the training set. Tests alone give the reward,
so that no judge is in the way. Evaluated every 10 episodes; one JSON line each time: name, when, success rate, problems, seconds so far.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rlaif.config import TrainConfig
from rlaif.evals import EvalResult
from rlaif.problems import load_problems
from rlaif.problems.dedupe import overlap_report
from rlaif.problems.split import stable_hash
from rlaif.runs import Console
from rlaif.train import loop
from rlaif.train.setup import Hooks, ProblemSets, divided

HELD_OUT = 110


def tuning_sets(config: TrainConfig, hooks: Hooks) -> ProblemSets:
    """Training problems without those set apart for tuning, and those."""
    train = load_problems("builtin/intro", split="train")
    apart = {problem.id for problem in sorted(train, key=lambda problem: stable_hash("tune" + problem.id))[:HELD_OUT]}
    held_out = load_problems("builtin/intro", split="validation") + [problem for problem in train if problem.id in apart]
    rest = [problem for problem in train if problem.id not in apart]
    taught, practised = divided(rest, config.sft_share)
    return ProblemSets(practised, held_out, overlap_report(rest, held_out), taught=taught)


def setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("settings", nargs="*", type=setting, help="learning_rate=4e-5 and so on, as in the config")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    start = time.perf_counter()
    base = {"feedback": "execution", "eval_every": 10, "save_every": 1000, "batch_size": 8, "group_size": 8, "sft_steps": 0}
    folder = arguments.out.parent / f"tune-{arguments.name}"
    config = TrainConfig.model_validate(base | {"device": arguments.device, "output_dir": folder, "overwrite": True} | dict(arguments.settings))
    loop.choose_problems = tuning_sets
    evaluate = loop.Session.evaluate

    def noted(session: loop.Session, name: str) -> EvalResult:
        result = evaluate(session, name)
        line = [arguments.name, name, round(result.success.value, 3), len(result.judged), round(time.perf_counter() - start)]
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        return result

    loop.Session.evaluate = noted
    loop.train(config, console=Console(live=False))


if __name__ == "__main__":
    main()
