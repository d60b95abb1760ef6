"""How a run went: the means of some of its metrics over every few episodes.

    python benchmarks/curve.py recipes/results/ladder/seed0/ai-metrics.jsonl start_kl judge_score_mean held_out_pass_rate
    python benchmarks/curve.py my_longer_model/metrics.jsonl pass_rate skipped_group_share

The first is the monitor's question, whether the judge is being gamed: its score against the hidden tests, over the distance from the start.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--episodes", type=int, default=5, help="episodes in one mean")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.metrics.read_text(encoding="utf-8").splitlines()]
    for first in range(0, len(rows), args.episodes):
        some = rows[first : first + args.episodes]
        found = {key: [row[key] for row in some if row.get(key) is not None] for key in args.keys}
        means = [f"{key} {fmean(values):.3f}" for key, values in found.items() if values]
        print(f"episodes {some[0]['episode']} to {some[-1]['episode']}: {', '.join(means)}")


if __name__ == "__main__":
    main()
