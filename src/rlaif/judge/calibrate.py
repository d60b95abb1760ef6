"""From a judge's raw belief to a probability, and the figures that say how good it is. Plain numpy.

Platt: Platt 1999, a logistic fit on the logit. Isotonic: pool adjacent violators. ECE: Guo et al. 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["identity", "platt", "isotonic"]
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """A non-decreasing map from raw belief to probability, kept as JSON."""

    kind: Kind = "identity"
    slope: float = 1.0
    offset: float = 0.0
    x: tuple[float, ...] = field(default=())
    y: tuple[float, ...] = field(default=())

    def apply(self, raw: float) -> float:
        """The calibrated probability of one raw belief in [0, 1]."""
        match self.kind:
            case "identity":
                return float(raw)
            case "platt":
                return float(1 / (1 + np.exp(-np.clip(self.slope * _logit(np.asarray(raw)) + self.offset, -60, 60))))
            case "isotonic":
                return float(np.interp(raw, self.x, self.y))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Calibration:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(data["kind"], data["slope"], data["offset"], tuple(data["x"]), tuple(data["y"]))


IDENTITY = Calibration()


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _EPS, 1 - _EPS)
    return np.log(p / (1 - p))


def fit_platt(raw: Sequence[float], correct: Sequence[bool]) -> Calibration:
    """Logistic regression on the logit with Platt's smoothed targets and a faint pull to the identity. The slope is kept at 0 or above."""
    from scipy.optimize import minimize

    x, labels = _logit(np.asarray(raw, float)), np.asarray(correct, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    prior = np.array([1.0, 0.0])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = weights[0] * x + weights[1]
        error = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - target
        value = np.sum(np.logaddexp(0, z) - target * z) + 5e-4 * np.sum((weights - prior) ** 2)
        return float(value), np.array([error @ x, error.sum()]) + 1e-3 * (weights - prior)

    weights = minimize(loss, prior, jac=True, method="BFGS").x
    if weights[0] < 0:  # a judge that is worse than chance: say the base rate, do not turn its verdicts round
        rate = float(np.clip(target.mean(), _EPS, 1 - _EPS))
        return Calibration("platt", 0.0, float(np.log(rate / (1 - rate))))
    return Calibration("platt", float(weights[0]), float(weights[1]))


def fit_isotonic(raw: Sequence[float], correct: Sequence[bool]) -> Calibration:
    """Least-squares non-decreasing fit, as knots for linear interpolation."""
    order = np.argsort(np.asarray(raw, float), kind="stable")
    x, y = np.asarray(raw, float)[order], np.asarray(correct, float)[order]
    blocks: list[list[float]] = []  # [sum of y, count, first x, last x]
    for xi, yi in zip(x, y, strict=True):
        blocks.append([yi, 1, xi, xi])
        while len(blocks) > 1 and (blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1] or blocks[-2][3] == blocks[-1][2]):
            total, count, _, last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count, blocks[-1][2], last]
    knots_x, knots_y = [], []
    for total, count, first, last in blocks:
        for edge in dict.fromkeys((first, last)):
            knots_x.append(float(edge))
            knots_y.append(float(total / count))
    return Calibration("isotonic", x=tuple(knots_x), y=tuple(knots_y))


def auroc(score: Sequence[float], correct: Sequence[bool]) -> float:
    """P(a correct item scores above a wrong one), ties counting half; NaN without both kinds."""
    from scipy.stats import rankdata

    labels = np.asarray(correct, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(np.asarray(score, float))
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auroc_interval(score: Sequence[float], correct: Sequence[bool], z: float = 1.96) -> tuple[float, float]:
    """Newcombe's interval of the AUROC (Statistics in Medicine 2006, part 2, method 5): Hanley and McNeil's variance at the bound itself.

    Unlike one around the estimate it has a width where every pair is in order. NaN without both kinds.
    """
    from scipy.optimize import brentq

    area = auroc(score, correct)
    m = int(np.sum(correct))
    n = len(correct) - m
    half = (m + n) / 2 - 1

    def excess(bound: float) -> float:
        variance = bound * (1 - bound) * (1 + half * (1 - bound) / (2 - bound) + half * bound / (1 + bound)) / (m * n)
        return abs(area - bound) - z * variance**0.5

    if np.isnan(area):
        return area, area
    low = 0.0 if area == 0 else float(brentq(excess, 0.0, area - 1e-9))
    high = 1.0 if area == 1 else float(brentq(excess, area + 1e-9, 1.0))
    return low, high


def ece(score: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error over equal-width bins: the gap between belief and frequency, weighted by the bin's share."""
    p, y = np.asarray(score, float), np.asarray(correct, float)
    index = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs(p[index == b].mean() - y[index == b].mean()) * (index == b).mean() for b in range(bins) if (index == b).any()))


def brier(score: Sequence[float], correct: Sequence[bool]) -> float:
    """Mean squared distance of belief and outcome."""
    return float(np.mean((np.asarray(score, float) - np.asarray(correct, float)) ** 2))


def pair_accuracy(score: Sequence[float], correct: Sequence[bool], group: Sequence[str]) -> float:
    """Share of (correct, wrong) pairs of one group that the score orders rightly, ties counting half; NaN without a pair."""
    rows: dict[str, tuple[list[float], list[float]]] = {}
    for value, label, key in zip(score, correct, group, strict=True):
        rows.setdefault(key, ([], []))[bool(label)].append(value)
    outcomes = [(good > bad) + 0.5 * (good == bad) for wrong, right in rows.values() for good in right for bad in wrong]
    return float(np.mean(outcomes)) if outcomes else float("nan")
