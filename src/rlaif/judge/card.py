"""The card of a judge: what it is, what it was trained on, what was measured, and what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.judge.constitution import Constitution


def write_card(folder: Path, facts: dict[str, Any], constitution: Constitution) -> None:
    """judge.json and README.md."""
    (folder / "judge.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(judge_card(facts, constitution), encoding="utf-8")


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

## Figures on the validation part, after calibration

| part | programs | AUROC | pairs in order | ECE | Brier |
| --- | --- | --- | --- | --- | --- |
{rows}

The epoch was chosen on this part, so these figures flatter; measure on your own with `rlaif judge eval FILE.jsonl`.

## Limits

It sees a program's structure without names, comments or prose, up to about a thousand tokens.
It is no proof: let tests gate it where there are tests.
"""


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"
