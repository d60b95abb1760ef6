"""pass@k and how sure one can be of it: the unbiased estimator, intervals over problems, and the paired comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval. `count` is how many problems it rests on; `method` is how the interval was had."""

    value: float
    low: float
    high: float
    count: int
    method: str
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True, slots=True)
class Paired:
    """After minus before over the same problems. `wins`: problems that got better, `losses`: worse, `p_value`: exact two-sided sign test."""

    before: float
    after: float
    difference: Interval
    wins: int
    losses: int
    ties: int
    p_value: float

    @property
    def settled(self) -> bool:
        """True if the interval of the difference leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples passes, from n samples of which c passed.

    1 - C(n-c, k) / C(n, k), as the product 1 - prod_{i=n-c+1..n} (1 - k/i), which never forms the huge binomials
    (Chen et al. 2021, arXiv 2107.03374, equation 1 and figure 3). Unbiased, unlike 1 - (1 - c/n)^k.
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"passed samples must be between 0 and n: c={c}, n={n}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of samples: k={k}, n={n}")
    if n - c < k:
        return 1.0
    miss = 1.0
    for i in range(n - c + 1, n + 1):
        miss *= 1.0 - k / i
    return 1.0 - miss


def wilson(passed: int, total: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927): it stays inside [0, 1] and is not empty at 0 of n. Raises ValueError for total 0."""
    if total < 1 or not 0 <= passed <= total:
        raise ValueError(f"needs 0 <= passed <= total and total >= 1: {passed} of {total}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, z2n = passed / total, z * z / total
    centre = (share + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * (share * (1 - share) / total + z2n / (4 * total)) ** 0.5
    # At 0 and at n the exact bound is 0 or 1; floating point would leave it a hair inside.
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == total else min(1.0, centre + half)
    return Interval(share, low, high, total, "wilson", level)


def mean_interval(scores: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of one score a problem, each in [0, 1], with an interval over problems.

    Scores of 0 and 1 alone (one sample a problem) get Wilson's. Others get the percentile bootstrap over problems, which keeps the
    samples of one problem together: they are not independent. Scores that are all alike would give the bootstrap nothing to vary, so
    they get Wilson's at the nearest count.
    """
    if not scores:
        raise ValueError("no problem to average over")
    values = np.asarray(scores, dtype=float)
    mean, count = float(values.mean()), len(values)
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), count, level)
    if values.min() == values.max():
        near = wilson(round(mean * count), count, level)
        return Interval(mean, min(near.low, mean), max(near.high, mean), count, "wilson", level)
    low, high = np.quantile(_resampled_means(values, seed), [0.5 - level / 2, 0.5 + level / 2])
    return Interval(mean, float(low), float(high), count, "bootstrap", level)


def paired(before: Sequence[float], after: Sequence[float], level: float = 0.95, seed: int = 0) -> Paired:
    """Compare two models on the same problems in the same order; scores in [0, 1].

    The interval resamples problems with both their scores, so what makes a problem hard cancels. Raises ValueError if the lengths differ.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"a paired comparison needs the same problems on both sides: {len(before)} and {len(after)}")
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    delta = second - first
    if delta.min() == delta.max():  # nothing varies; all ties is the usual case (an untrained model)
        low = high = float(delta[0])
    else:
        low, high = (float(x) for x in np.quantile(_resampled_means(delta, seed), [0.5 - level / 2, 0.5 + level / 2]))
    difference = Interval(float(delta.mean()), low, high, len(delta), "paired bootstrap", level)
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    return Paired(float(first.mean()), float(second.mean()), difference, wins, losses, len(delta) - wins - losses, sign_test(wins, losses))


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: how often a fair coin splits wins + losses at least so unevenly. Ties say nothing and are left out."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of RESAMPLES bootstrap samples. Counting how often each problem is drawn needs no index matrix; chunks bound the memory."""
    rng, count = np.random.default_rng(seed), len(values)
    chunk = max(1, 4_000_000 // count)
    sizes = [min(chunk, RESAMPLES - start) for start in range(0, RESAMPLES, chunk)]
    return np.concatenate([rng.multinomial(count, np.full(count, 1 / count), size=size) @ values / count for size in sizes])
