"""How well models do on the built-in test split, HumanEval and MBPP, measured by `rlaif evaluate` itself.

    python benchmarks/models_table.py smollm2-135m FOLDER --shared SHARED --out models_table.json

SHARED holds data/humaneval.jsonl and data/mbpp_sanitized.jsonl. Greedy, at most 256 new tokens. Each evaluation is one call of the
command, so that its time includes loading; its answers are kept in --answers FOLDER. Writes JSON (with the command of each row) and
prints a Markdown table; rows that the JSON holds already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SETS = {"builtin (test)": ("builtin", "test"), "HumanEval": ("humaneval.jsonl", "all"), "MBPP sanitized (test)": ("mbpp_sanitized.jsonl", "test")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--sets", default=",".join(SETS), help=f"some of: {', '.join(SETS)}")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    for model in arguments.models:
        for title in arguments.sets.split(","):
            label = Path(model).name
            if any((row["model"], row["set"]) == (label, title) for row in rows):
                continue
            rows.append(measure(model, label, title, arguments))
            content = {"machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}", "rows": rows}
            arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def measure(model: str, label: str, title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One call of `rlaif evaluate`."""
    name, split = SETS[title]
    if name != "builtin":
        if arguments.shared is None:
            raise SystemExit(f"{title} needs --shared")
        name = str(arguments.shared / "data" / name)
    words = ["evaluate", "--model_path", model, "--problems", name, "--split", split, "--max_new_tokens", str(arguments.max_new_tokens), "--json"]
    for flag in ("limit", "threads"):
        if getattr(arguments, flag):
            words += [f"--{flag}", str(getattr(arguments, flag))]
    if arguments.answers:
        arguments.answers.mkdir(parents=True, exist_ok=True)
        words += ["--answers", str(arguments.answers / f"{label}-{Path(name).stem}.jsonl")]
    print(f"{label} on {title} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "rlaif", *words], stdout=subprocess.PIPE, text=True, check=True)
    took = time.perf_counter() - start
    result = json.loads(done.stdout)
    shown = ["rlaif", *(Path(word).name if "/" in word else word for word in words)]  # folders of this machine say nothing elsewhere
    kept = {key: result[key] for key in ("success_rate", "by_difficulty", "failures", "truncated_share", "generate_s", "execute_s", "grade")}
    return {"model": label, "set": title, "command": shlex.join(shown), "seconds": round(took, 1), **kept}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | set | problems | pass@1 (95% interval) | cut off | seconds |", "| --- | --- | ---: | --- | ---: | ---: |"]
    for row in rows:
        rate = row["success_rate"]
        share = f"{100 * rate['value']:.1f}% ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"
        lines.append(f"| {row['model']} | {row['set']} | {rate['count']} | {share} | {row['truncated_share']:.0%} | {row['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
