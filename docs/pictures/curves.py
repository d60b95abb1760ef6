"""The README's picture of how runs learnt, from the figures that are committed with their configs.

    python docs/pictures/curves.py "make train, seed 0=recipes/results/default-seed0" "PPO alone=recipes/results/rl_only-seed0"

Left: the share of sampled answers whose graded tests all pass, episode by episode (dots) and as a running mean of five. Right: held-out
success before, after the warm start and after; the bar is the 95% interval of the whole difference (paired bootstrap).
Writes curves.png beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
WINDOW = 5


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of up to WINDOW values that end at each place; same length."""
    return np.array([values[max(0, i + 1 - WINDOW) : i + 1].mean() for i in range(len(values))])


def held_out(folder: Path) -> tuple[list[str], list[float], list[float], list[float]]:
    """Names of the states, their success rates, and the interval's ends (those of the paired difference to the base, moved to the base's rate)."""
    lift = json.loads((folder / "lift.json").read_text())
    whole, after_rl = lift["lift"]["overall"], lift.get("rl_lift")
    before = whole["before"]
    names, rates, lows, highs = ["before"], [before], [before], [before]
    if after_rl:
        warm = after_rl["overall"]["before"]
        names, rates, lows, highs = [*names, "warm start"], [*rates, warm], [*lows, warm], [*highs, warm]
    return [*names, "after"], [*rates, whole["after"]], [*lows, before + whole["difference"]["low"]], [*highs, before + whole["difference"]["high"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=HERE / "curves.png")
    arguments = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for number, text in enumerate(arguments.runs):
        name, _, folder = text.partition("=")
        colour = f"C{number}"
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        episodes = np.array([row["episode"] for row in rows])
        rates = 100 * np.array([row["pass_rate"] for row in rows])
        left.plot(episodes, rates, ".", color=colour, alpha=0.35)
        left.plot(episodes, running_mean(rates), color=colour, label=name)
        states, success, lows, highs = held_out(Path(folder))
        places = np.array([{"before": 0, "warm start": 1, "after": 2}[state] for state in states]) + 0.06 * number
        values = 100 * np.array(success)
        spread = np.abs(100 * np.array([lows, highs]) - values)
        right.errorbar(places, values, yerr=spread, fmt="o-", color=colour, capsize=3, label=name)
    left.set(xlabel="episode", ylabel="sampled answers that pass (%)", ylim=(0, 100))
    right.set(ylabel="held-out success (%)", ylim=(0, None))
    right.set_xticks([0, 1, 2], ["before", "after the\nwarm start", "after"])
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
