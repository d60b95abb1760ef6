"""Static quality: one ruff call, deaf to comments, and what lowers it."""

from __future__ import annotations

import subprocess

import pytest

from rlaif.rewards import quality
from rlaif.rewards.quality import complexity_of, quality_reports

CLEAN = "def add(a, b):\n    return a + b\n"


def test_clean_messy_and_broken() -> None:
    messy = "def f(x):\n    l = []\n    y = 3\n    if x == None: return []\n    try:\n        return eval(x)\n    except:\n        return l\n"
    clean, poor, broken = quality_reports([CLEAN, messy, "def f(:"])
    assert clean.score == 1.0 and not clean.findings
    assert poor.score < 0.5 and any("E711 line 4" in finding for finding in poor.findings)
    assert broken.score == 0.0 and "syntax" in broken.findings[0]


def test_order_and_repeats() -> None:
    codes = [CLEAN, "def f(x, a=[]):\n    return a + x\n", CLEAN]
    assert [report.score for report in quality_reports(codes)] == [1.0, 0.75, 1.0]
    assert quality_reports([]) == []


@pytest.mark.parametrize("comment", ["# noqa", "# noqa: B006", "# type: ignore"])
def test_a_comment_cannot_silence_a_finding(comment: str) -> None:
    code = f"# ruff: noqa\n# flake8: noqa\ndef f(x, a=[]):  {comment}\n    return a + x\n"
    assert quality_reports([code])[0].score == 0.75


def test_one_process_for_a_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = subprocess.run
    monkeypatch.setattr(quality.subprocess, "run", lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    quality_reports([f"{CLEAN}# {number}\n" for number in range(40)])
    assert len(calls) == 1


def test_complexity_costs_only_beyond_what_is_normal() -> None:
    branches = "".join(f"    if x == {number}:\n        y += {number}\n" for number in range(14))
    tangled = f"def f(x):\n    y = 0\n{branches}    return y\n"
    assert complexity_of(tangled) == 15 and complexity_of(CLEAN) == 1
    assert quality_reports([tangled])[0].score <= 0.75
    assert "complexity 15" in quality_reports([tangled])[0].findings[-1]


def test_hostile_text_is_only_text() -> None:
    reports = quality_reports(["\x00", "\ud800", "a" * 100_000, "(" * 5_000, "# -*- coding: rot13 -*-\ncevag(1)"])
    assert all(0.0 <= report.score <= 1.0 for report in reports)
