"""`rlaif prefer`: preference pairs, and three ways to learn from AI feedback without a loop of reinforcement learning, each its own command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.cli.flags import CommandLine, Parsed
from rlaif.cli.group import run_group
from rlaif.runs import Console
from rlaif.train.prefer_config import CollectConfig, DpoConfig, ReviseConfig, RewardModelConfig

JSON = {"json": "The summary as JSON on stdout, prose on stderr."}

COLLECT = CommandLine(
    "rlaif prefer collect",
    "Sample answers, label pairs of them by tests and, where those tie, by the judge, and write them in Hugging Face's preference format.",
    "rlaif prefer collect --rounds 1 --output_dir pairs",
    CollectConfig,
    switches=JSON,
    details="The judge is asked in both orders; a pair on which it contradicts itself is dropped and counted. "
    "summary.json says how far the labels agree with held-out tests.",
)
REWARD_MODEL = CommandLine(
    "rlaif prefer reward-model",
    "Train a scalar reward model on preference pairs (Bradley-Terry, soft labels); then use it as a judge.",
    "rlaif prefer reward-model --preferences pairs --output_dir my_reward_model",
    RewardModelConfig,
    switches=JSON,
    details="Use it with: rlaif train --feedback ai --judge reward_model --judge.model my_reward_model",
)
DPO = CommandLine(
    "rlaif prefer dpo",
    "Offline DPO on preference pairs through TRL, with held-out evaluation before and after.",
    "rlaif prefer dpo --preferences pairs --output_dir my_dpo --eval_limit 4",
    DpoConfig,
    switches=JSON,
    details="Needs TRL: pip install 'rlaif[trl]'. Online DPO, on fresh samples, is: rlaif train --algo online_dpo",
)
REVISE = CommandLine(
    "rlaif prefer revise",
    "Constitutional AI's first stage: sample, criticise by a principle, revise, keep what passes its tests, fine-tune on that.",
    "rlaif prefer revise --judge api --base-url http://localhost:8000/v1 --judge.model qwen --rounds 1 --eval_limit 4 --output_dir my_revised",
    ReviseConfig,
    switches=JSON,
    details="The judge must be able to write: api, or local (any causal model). It is told nothing of the graded and held-out tests. "
    "What share of its critiques and revisions can be used is measured, and said where it is too small.",
)


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    commands = {
        "collect": ("sample pairs and label them by tests and judge", _collect),
        "reward-model": ("train a reward model on pairs, to be used as a judge", _reward_model),
        "dpo": ("train on pairs directly, offline", _dpo),
        "revise": ("critique, revise, fine-tune (Constitutional AI, stage 1)", _revise),
    }
    return run_group("rlaif prefer", "Preference pairs from AI feedback, and learning from them.", COLLECT.example, commands, argv)


def _collect(argv: Sequence[str]) -> int:
    parsed = COLLECT.parse(argv)
    from rlaif.train.collect_pairs import collect_pairs

    done = collect_pairs(parsed.settings, console=_console(parsed))
    return _end(parsed, done.path, done.summary, f"Pairs: {done.file}")


def _reward_model(argv: Sequence[str]) -> int:
    parsed = REWARD_MODEL.parse(argv)
    from rlaif.train.reward_model import train_reward_model

    done = train_reward_model(parsed.settings, console=_console(parsed))
    return _end(parsed, done.path, done.figures, f"Reward model: {done.folder}")


def _dpo(argv: Sequence[str]) -> int:
    parsed = DPO.parse(argv)
    from rlaif.train.dpo import train_dpo

    done = train_dpo(parsed.settings, console=_console(parsed))
    return _end(parsed, done.path, {"pairs": done.pairs, "left_out": done.left_out} | _lift(done.lift), f"Model and logs: {done.path}")


def _revise(argv: Sequence[str]) -> int:
    parsed = REVISE.parse(argv)
    from rlaif.train.revision import revise

    done = revise(parsed.settings, console=_console(parsed))
    return _end(parsed, done.path, done.summary | _lift(done.lift), f"Model and logs: {done.path}")


def _console(parsed: Parsed[Any]) -> Console:
    return Console(json_mode="json" in parsed.switches)


def _lift(lift: Any) -> dict[str, Any]:
    return {"lift": lift.comparison.to_dict()} if lift.comparison else {}


def _end(parsed: Parsed[Any], path: Path, found: dict[str, Any], line: str) -> int:
    """The report, and the last word."""
    console = _console(parsed)
    console.message(line)
    report = _report(path, console)
    if report is not None:
        console.message(f"Report: {report}")
    if "json" in parsed.switches:
        print(json.dumps({"run": str(path), **found}))
    return 0


def _report(path: Path, console: Console) -> Path | None:
    from rlaif.errors import RlaifError
    from rlaif.report import ReportWriter
    from rlaif.runs import RunDir

    try:
        writer = ReportWriter(RunDir.open(path))
        writer.write()
    except (OSError, RlaifError) as error:
        console.warning(f"The report could not be written: {error}")
        return None
    return writer.path
