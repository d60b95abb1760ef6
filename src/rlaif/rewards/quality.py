"""Static quality in [0, 1]: lint findings (one ruff call for a whole batch) and cyclomatic complexity (radon).

ruff runs isolated, without its cache, and deaf to `noqa`: neither a config file lying about nor a comment by the policy changes a finding.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rlaif.errors import EnvironmentFailure
from rlaif.types import QualityReport

SELECT = "E4,E7,E9,F,B,C4,SIM,PERF,PIE,RET5,PLR1,PLR0911,PLR0912,PLW,TRY203,UP,A001,A002,FURB,S307,S102"
IGNORE = "PLR1714,SIM108,SIM300,UP009,UP015,PERF203,B905,PLW2901,RET505,F401"
"""Left out: matters of taste, and an unused import (the prompt's preamble often supplies one that the answer does not need)."""

_BUGLIKE = ("F", "B", "E9", "E72", "PLW", "S1", "S3")
_BUG_COST, _STYLE_COST = 0.25, 0.1
_COMPLEXITY_FREE, _COMPLEXITY_COST = 10, 0.05
_TIMEOUT_S = 60.0


_recent: dict[str, QualityReport] = {}
"""The last programs linted: the learner's `_evaluate_code_quality` asks again, one by one, for what its batch was just asked."""
_RECENT = 4096


def quality_reports(codes: Sequence[str]) -> list[QualityReport]:
    """One report per program, in order. Code that does not parse scores 0. Raises EnvironmentFailure if ruff cannot be run."""
    known = {code: _recent[code] for code in codes if code in _recent}
    fresh = [code for code in dict.fromkeys(codes) if code not in known]
    known |= {code: _report(code, found) for code, found in zip(fresh, _ruff(fresh) if fresh else [], strict=True)}
    _recent.update((code, known[code]) for code in fresh)
    for old in list(_recent)[: max(0, len(_recent) - _RECENT)]:
        del _recent[old]
    return [known[code] for code in codes]


def _report(code: str, findings: list[tuple[str, str]]) -> QualityReport:
    syntax = [text for rule, text in findings if rule in ("", "invalid-syntax", "E999")]
    if syntax:
        return QualityReport(0.0, tuple(syntax[:1]))
    complexity = complexity_of(code)
    cost = sum(_BUG_COST if rule.startswith(_BUGLIKE) else _STYLE_COST for rule, _ in findings)
    texts = [text for _, text in findings]
    if complexity > _COMPLEXITY_FREE:
        cost += _COMPLEXITY_COST * (complexity - _COMPLEXITY_FREE)
        texts.append(f"cyclomatic complexity {complexity} (above {_COMPLEXITY_FREE})")
    return QualityReport(max(0.0, 1.0 - cost), tuple(texts), complexity)


def complexity_of(code: str) -> int:
    """The highest cyclomatic complexity of a function in `code` (McCabe 1976); 1 if there is none or it cannot be read."""
    from radon.complexity import cc_visit

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return max((block.complexity for block in cc_visit(code)), default=1)
    except Exception:  # radon walks a stranger's syntax tree; whatever it trips over is not worth a batch
        return 1


@cache
def ruff_path() -> Path:
    """The ruff of this environment."""
    name = "ruff.exe" if sys.platform == "win32" else "ruff"
    for folder in (
        Path(sysconfig.get_path("scripts")),
        Path(sys.executable).parent,
        Path(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))),
    ):
        if (folder / name).is_file():
            return folder / name
    raise EnvironmentFailure("ruff is not installed", "static quality is part of the reward", "pip install ruff")


def _ruff(codes: Sequence[str]) -> list[list[tuple[str, str]]]:
    """(rule, text) findings of each program."""
    found: list[list[tuple[str, str]]] = [[] for _ in codes]
    if not codes:
        return found
    with tempfile.TemporaryDirectory(prefix="rlaif-lint-") as folder:
        for index, code in enumerate(codes):
            (Path(folder) / f"{index}.py").write_text(code, encoding="utf-8", errors="backslashreplace", newline="")
        command = [str(ruff_path()), "check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero", "--quiet", "--output-format", "json"]
        command += ["--target-version", "py311", "--select", SELECT, "--ignore", IGNORE, folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            rows = json.loads(done.stdout)
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            raise EnvironmentFailure("ruff failed", str(error)[:300], "rlaif doctor") from None
    for row in rows:
        line = (row.get("location") or {}).get("row", 0)
        rule = row.get("code") or ""
        found[int(Path(row["filename"]).stem)].append((rule, f"{rule or 'syntax'} line {line}: {row['message']}"))
    return found
