"""Probes in a run: sent through the run's own judge at the rate asked for, logged, and watched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from rlaif.config import JudgeConfig, TrainConfig
from rlaif.runs import Console, RunDir
from rlaif.train.loop import train
from rlaif.train.monitor import Monitor


def test_probes_go_through_the_live_judge_and_are_logged(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"Add {n} to a number.",
            "entry_point": f"add_{n}",
            "signature": f"def add_{n}(x):",
            "reference": f"def add_{n}(x):\n    return x + {n}\n",
            "tests": [{"role": "graded", "input": f"add_{n}(1)", "expected": str(n + 1)}],
            "split": ("train", "train", "test")[n],
        }
        for n in range(3)
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    logged = {}
    for rate in (1.0, 0.0):
        config = TrainConfig(
            model=str(tiny("llama")),
            problems=str(tmp_path / "tasks.jsonl"),
            output_dir=tmp_path / str(rate),
            judge=JudgeConfig(kind="local", model=str(tiny("llama")), probe_rate=rate),
            episodes=1,
            batch_size=2,
            group_size=2,
            max_new_tokens=4,
            dtype="float32",
            threads=1,
        )
        with open(os.devnull, "w") as nowhere:
            train(config, console=Console(file=nowhere, live=False))
        (row,) = RunDir.open(tmp_path / str(rate)).iter_metrics()
        logged[rate] = {key: value for key, value in row.items() if key.startswith("judge_probe")}
    assert logged[0.0] == {}
    assert logged[1.0]["judge_probe_refused_share"] > 0 and logged[1.0]["judge_probe_gain"] == 0 and logged[1.0]["judge_probe_score"] == 0


def test_a_probe_that_pays_raises_an_alarm() -> None:
    for metrics in ({"judge_probe_score": 0.9}, {"judge_probe_gain": 0.1}):
        assert [alarm.kind for alarm in Monitor().observe(1, [], metrics)] == ["judge_gamed"]
    assert Monitor().observe(1, [], {"judge_probe_score": 0.0, "judge_probe_gain": 0.0}) == []
