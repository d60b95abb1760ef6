"""95% intervals for an episode's means. Completions of one problem resemble each other, so the problem is the unit, not the completion."""

from __future__ import annotations

import math
from collections.abc import Sequence

_T_975 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
"""Student's t at 97.5% for 1 to 20 degrees of freedom."""

Interval = tuple[float, float] | None


def t_975(degrees: int) -> float:
    """Within 0.003 of the exact quantile beyond the table (Cornish-Fisher)."""
    return _T_975[degrees - 1] if degrees <= len(_T_975) else 1.96 + 2.372 / degrees + 2.82 / degrees**2


def clustered_error(groups: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """Mean over all values and its standard error with each group as one cluster (Liang and Zeger 1986); None for fewer than two groups."""
    count = sum(len(group) for group in groups)
    mean = sum(sum(group) for group in groups) / count
    clusters = len(groups)
    if clusters < 2:
        return mean, None
    squares = sum((sum(group) - len(group) * mean) ** 2 for group in groups)
    return mean, math.sqrt(squares * clusters / (clusters - 1)) / count


def mean_interval(groups: Sequence[Sequence[float]], highest: float = math.inf) -> tuple[float, Interval]:
    """Mean and 95% interval of a quantity that cannot be negative, nor above `highest`."""
    mean, error = clustered_error(groups)
    if error is None:
        return mean, None
    margin = t_975(len(groups) - 1) * error
    return mean, (max(0.0, mean - margin), min(highest, mean + margin))


def share_interval(groups: Sequence[Sequence[float]]) -> tuple[float, Interval]:
    """Mean of zeros and ones with Wilson's interval at the effective sample size, so that 0 of 32 is not called certain."""
    mean, error = clustered_error(groups)
    count = sum(len(group) for group in groups)
    effective = float(len(groups)) if not error else min(float(count), mean * (1 - mean) / error**2)
    return mean, wilson(mean, max(1.0, effective))


def trend_intervals(values: Sequence[float | None], window: int = 7) -> list[Interval]:
    """95% intervals of a local straight line through the `window` nearest episodes, for a figure that has one number an episode.

    The line's usual confidence interval at the episode itself (t with n - 2 degrees of freedom); None where fewer than five numbers are near.
    """
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    found: list[Interval] = []
    for place, value in enumerate(values):
        near = sorted(known, key=lambda point: (abs(point[0] - place), point[0]))[:window]
        if value is None or len(near) < 5:
            found.append(None)
            continue
        count = len(near)
        x_mean, y_mean = sum(x for x, _ in near) / count, sum(y for _, y in near) / count
        spread = sum((x - x_mean) ** 2 for x, _ in near)
        slope = sum((x - x_mean) * (y - y_mean) for x, y in near) / spread
        fitted = y_mean + slope * (place - x_mean)
        variance = sum((y - y_mean - slope * (x - x_mean)) ** 2 for x, y in near) / (count - 2)
        margin = t_975(count - 2) * math.sqrt(variance * (1 / count + (place - x_mean) ** 2 / spread))
        found.append((fitted - margin, fitted + margin))
    return found


def wilson(share: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share among `count` independent trials."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    margin = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - margin), min(1.0, centre + margin)
