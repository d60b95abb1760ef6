"""The card of a judge: what it is, what it was trained on, what was measured, and what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.judge.constitution import Constitution


def write_card(folder: Path, facts: dict[str, Any], constitution: Constitution) -> None:
    """judge.json and README.md."""
    (folder / "judge.json").write_text(json.dumps(_without_nan(facts), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(judge_card(facts, constitution), encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """A figure that could not be had is null: NaN is no JSON."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and value != value else value


def judge_card(facts: dict[str, Any], constitution: Constitution) -> str:
    """Markdown from the figures in `judge.json`; nothing in it is written by hand, so it cannot claim what was not measured."""
    rows = "\n".join(
        f"| {name} | {part['n']} | {_number(part['auroc'])} | {_number(part['pair_accuracy'])} | {_number(part['ece'])} | {_number(part['brier'])} |"
        for name, part in facts["figures"].items()
    )
    principles = "\n".join(f"- **{p.id}** (weight {p.weight:g}): {p.principle}" for p in constitution.principles if p.id in facts["principles"])
    counts = facts["programs"]
    return f"""# A judge of Python code

A LoRA adapter (rank {facts["rank"]}, {facts["adapter_bytes"] / 2**20:.1f} MB) on `{facts["base"]}`,
read as the expected score over the logits of Yes and No.

## Principles asked

{principles}

## Data

{counts["train"]} programs for training, {counts["validation"]} for validation, {counts["calibration"]} for calibration,
each problem whole in one part. Labels of correctness come from running every test.
{_kinds(facts)}
## Figures on the validation part, after calibration

| part | programs | AUROC | pairs in order | ECE | Brier |
| --- | --- | --- | --- | --- | --- |
{rows}

The epoch was chosen on this part, so these figures flatter; measure on your own with `rlaif judge eval FILE.jsonl`.

{_measured(facts)}## Limits

It sees a program's structure without names, comments or prose, up to about a thousand tokens.
It is no proof: let tests gate it where there are tests.
"""


def _kinds(facts: dict[str, Any]) -> str:
    """What was learnt from, by where it comes from; empty for a judge written before that was kept."""
    if "kinds" not in facts:
        return ""
    rows = "\n".join(f"| {kind} | {count['right']} | {count['wrong']} |" for kind, count in facts["kinds"].items())
    done = facts["calibrated_on"]
    return f"""
| learnt from | right | wrong |
| --- | --- | --- |
{rows}

Calibrated on {done["programs"]} programs ({done["correct"]} right; kind: {done["kind"]}).
"""


def _measured(facts: dict[str, Any]) -> str:
    """Figures of `benchmarks/judge.py`, if it has been run for this judge: every judge on the same items."""
    if "measured" not in facts:
        return ""
    rows = [
        f"| {judge} | {part} | {level} | {found['n']} | " + " | ".join(_number(found[name]) for name in ("auroc", "pair_accuracy", "ece")) + " |"
        for judge, parts in facts["measured"].items()
        for part, levels in parts.items()
        if isinstance(levels, dict)
        for level, found in levels.items()
    ]
    speed = "".join(
        f"\n{row['per_second']} judgements a second with the shared prefix {'on' if row['share_prefix'] else 'off'} ({row['threads']} threads)."
        for row in facts.get("speed", ())
    )
    return f"""## Figures on problems and policies that no training sample came from

| judge | items | level | programs | AUROC | pairs in order | ECE |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}
{speed}

"""


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
