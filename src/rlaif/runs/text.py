"""Small pieces of text for a terminal: sparklines, bars, and code that nobody trusts made safe to print."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn"}


def sparkline(values: Sequence[float | None], width: int = 24, low: float | None = None, high: float | None = None) -> str:
    """The values as one line of blocks, oldest first. More values than `width` are averaged in equal bins; None is a gap."""
    points = list(values)
    if not points or width < 1:
        return ""
    if len(points) > width:
        edges = [round(index * len(points) / width) for index in range(width + 1)]
        points = [_mean(points[start:end]) for start, end in itertools.pairwise(edges)]
    present = [value for value in points if value is not None and value == value]
    if not present:
        return " " * len(points)
    bottom, top = min(present) if low is None else low, max(present) if high is None else high
    span = top - bottom
    return "".join(" " if v is None or v != v else _BLOCKS[min(7, max(0, int(8 * (v - bottom) / span)))] if span > 0 else _BLOCKS[3] for v in points)


def printable(text: str, max_lines: int | None = None, max_columns: int = 400) -> str:
    """The text with everything that could steer a terminal or hide from a reader shown as \\x1b and the like; long texts cut with a note.

    Model output is hostile input here: escape sequences can retitle a window, move the cursor or fake a result.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    left_out = 0
    if max_lines is not None and len(lines) > max_lines:
        left_out = len(lines) - max_lines
        lines = lines[:max_lines]
    safe = ["".join(_visible(char) for char in line[:max_columns]) + ("…" if len(line) > max_columns else "") for line in lines]
    if left_out:
        safe.append(f"… {left_out} more line{'s' if left_out > 1 else ''}")
    return "\n".join(safe)


def _visible(char: str) -> str:
    if char == "\t":
        return "    "
    if unicodedata.category(char) in _INVISIBLE or char in "\u2028\u2029":
        return char.encode("unicode_escape").decode("ascii")
    return char


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None and value == value]
    return sum(present) / len(present) if present else None
