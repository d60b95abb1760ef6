"""One whole GRPO step, ours and TRL's side by side: sampling, rewards, update, optimiser; full weights, same model, prompts, sizes and rewards.

    python benchmarks/train_step.py                       # both sides, bfloat16 and float32, three rounds in alternation
    python benchmarks/train_step.py --profile             # where each second of one of our steps goes
    python benchmarks/train_step.py --sweep               # our step's time over 16 to 512 completions
    python benchmarks/train_step.py --dtypes float32 --rounds 5 --json

Each side runs in a process of its own (whose peak memory is reported) and steps only when it is its turn. Ours is `train.loop.run_episode`, logs
included. TRL gets every setting of `TRL_SETTINGS` for one step after a warm-up step, and the fastest one goes on into the rounds. Every completion
has exactly `--new-tokens` tokens (no side stops early), and its reward is a hash of its text, so that no group is without a gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRL_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "float32": {
        "micro-batch 8": {"per_device_train_batch_size": 8, "weights": "float32"},
        "micro-batch 16": {"per_device_train_batch_size": 16, "weights": "float32"},
        "one batch": {"per_device_train_batch_size": 0, "weights": "float32"},
    },
    "bfloat16": {
        "autocast, micro-batch 16": {"per_device_train_batch_size": 16, "weights": "float32", "bf16": True},
        "bf16 weights, micro-batch 8": {"per_device_train_batch_size": 8, "weights": "bfloat16", "bf16": True},
        "bf16 weights, micro-batch 16": {"per_device_train_batch_size": 16, "weights": "bfloat16", "bf16": True},
        "bf16 weights, one batch": {"per_device_train_batch_size": 0, "weights": "bfloat16", "bf16": True},
        "bf16 weights, micro-batch 16, memory kept": {"per_device_train_batch_size": 16, "weights": "bfloat16", "bf16": True, "keep_memory": True},
    },
}
"""What TRL is tried with; 0 is all completions at once. bf16 weights train with less precision than our float32 master weights, but sample faster.
keep_memory: with our allocator's settings (policy/memory.py), which TRL does not have by itself."""

WARM_UP = 2
"""Steps of each side before the rounds: in the first two, memory still grows."""

MARK = "@@ "


class Worker:
    """One side in its own process. `step()` lets it take one optimiser step and returns what it reports."""

    def __init__(self, args: argparse.Namespace, side: str, dtype: str, setting: str = "") -> None:
        command = [sys.executable, str(Path(__file__).with_name("train_step_sides.py")), side, "--dtype", dtype, "--setting", setting]
        for name in ("model", "prompts", "group", "new_tokens", "micro_batch_tokens"):
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        if args.threads:
            command += ["--threads", str(args.threads)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        self.errors.seek(0)
        raise SystemExit(f"a side ended early:\n{self.errors.read()[-3000:]}")

    def ask(self, what: str = "step") -> dict[str, Any]:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compare(args: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Both sides in alternation."""
    trials: dict[str, float] = {}
    for setting in () if args.trl_setting else TRL_SETTINGS[dtype]:
        try:
            worker = Worker(args, "trl", dtype, setting)
            worker.ask()  # warm-up
            trials[setting] = worker.ask()["step_s"]
            worker.close()
        except SystemExit as ended:  # out of memory, most likely: one setting less
            print(f"{setting}: {ended}", file=sys.stderr, flush=True)
    if not trials and not args.trl_setting:
        raise SystemExit(f"TRL took no step in {dtype}")
    best = args.trl_setting or min(trials, key=trials.get)
    sides = {"ours": Worker(args, "ours", dtype), "trl": Worker(args, "trl", dtype, best)}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(WARM_UP):
        for worker in sides.values():
            worker.ask()
    for _ in range(args.rounds):
        for side, worker in sides.items():
            found[side].append(worker.ask())
    for worker in sides.values():
        worker.close()
    rows = args.prompts * args.group
    result: dict[str, Any] = {"dtype": dtype, "trl_settings_tried_s": {name: round(value, 2) for name, value in trials.items()}, "trl_setting": best}
    for side, steps in found.items():
        for key in ("step_s", "sample_s", "update_s"):
            result[f"{side}_{key}"] = [round(step[key], 2) for step in steps]
        result[f"{side}_completions_per_s"] = [round(rows / step["step_s"], 3) for step in steps]
        result[f"{side}_peak_gib"] = round(max(step["peak_bytes"] for step in steps) / 2**30, 2)
        result[f"{side}_tokens"] = steps[-1]["tokens"]
    pairs = [theirs / ours for ours, theirs in zip(result["ours_step_s"], result["trl_step_s"], strict=True)]
    result["times_trl"] = [round(pair, 2) for pair in pairs]
    return result


def show(result: dict[str, Any], rows: int) -> None:
    print(f"\n{result['dtype']}, {rows} completions; TRL's settings tried (s): {result['trl_settings_tried_s']}; quoted: {result['trl_setting']}")
    print(f"{'':8}{'completions/s':>24}{'step s':>26}{'sampling s':>26}{'update s':>26}{'peak GiB':>10}")
    for side in ("ours", "trl"):
        cells = [spread(result[f"{side}_{key}"]) for key in ("completions_per_s", "step_s", "sample_s", "update_s")]
        print(f"{side:8}{cells[0]:>24}{cells[1]:>26}{cells[2]:>26}{cells[3]:>26}{result[f'{side}_peak_gib']:>10}")
    print(f"ours is {spread(result['times_trl'])} times as fast, round by round", flush=True)


def sweep(args: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Our step over the number of completions, in groups of `--group`; warm-up steps and then the best of `--rounds` for each."""
    steps: dict[int, float] = {}
    for rows in args.sizes:
        args.prompts = max(1, rows // args.group)
        worker = Worker(args, "ours", dtype)
        for _ in range(WARM_UP):
            worker.ask()
        steps[rows] = min(worker.ask()["step_s"] for _ in range(args.rounds))
        worker.close()
        print(f"{dtype} {rows:4} completions: {steps[rows]:7.2f} s, {1000 * steps[rows] / rows:6.0f} ms each", flush=True)
    return {"dtype": dtype, "step_s": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=80)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--trl-setting",
        default=None,
        choices=sorted({name for tried in TRL_SETTINGS.values() for name in tried}),
        help="take this one and try no other",
    )
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512], help="completions, for --sweep")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    if not args.json:
        print("  ".join(f"{key}: {value}" for key, value in machine.items()), flush=True)
    for dtype in args.dtypes:
        if args.sweep:
            result = sweep(args, dtype)
        elif args.profile:
            worker = Worker(args, "ours", dtype)
            for _ in range(WARM_UP):
                worker.ask()
            result = {"dtype": dtype} | worker.ask("profile")
            worker.close()
            if not args.json:
                print(f"\n{dtype}: one step of {args.prompts * args.group} completions\n" + result["text"], flush=True)
        else:
            result = compare(args, dtype)
            if not args.json:
                show(result, args.prompts * args.group)
        if args.json:
            print(json.dumps(machine | result), flush=True)


if __name__ == "__main__":
    main()
