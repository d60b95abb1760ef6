"""The JSON an API judge must answer with, and the strict reading of it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from rlaif.judge.constitution import Constitution

HIGHEST = 10
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


class BadAnswer(Exception):
    """An answer that is not exactly what was asked for; carries what it cost."""

    def __init__(self, why: str, usage: tuple[int, int] = (0, 0)) -> None:
        super().__init__(why)
        self.usage = usage


def answer_schema(constitution: Constitution) -> dict[str, Any]:
    """JSON Schema of one judgement; the reason comes first, so that the scores are written after it."""
    score = {"type": "integer", "minimum": 0, "maximum": HIGHEST}
    scores = {
        "type": "object",
        "properties": dict.fromkeys(constitution.ids, score),
        "required": list(constitution.ids),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "scores": scores},
        "required": ["reason", "scores"],
        "additionalProperties": False,
    }


def parse_answer(text: str, constitution: Constitution, usage: tuple[int, int] = (0, 0)) -> tuple[str, dict[str, float]]:
    """(reason, score in [0, 1] per principle). Raises BadAnswer unless the whole text is the one object that was asked for.

    A code fence around the whole object is forgiven; anything else around it is not: text that holds two objects has no single verdict.
    """
    text = text.strip()
    fenced = _FENCED.match(text)
    try:
        data = json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"not a JSON object: {str(error)[:80]}", usage) from None
    if not isinstance(data, dict) or set(data) != {"reason", "scores"}:
        raise BadAnswer("it must have `reason` and `scores`, and nothing else", usage)
    reason, scores = data["reason"], data["scores"]
    if not isinstance(reason, str) or not isinstance(scores, dict) or set(scores) != set(constitution.ids):
        raise BadAnswer("`scores` must have each principle exactly once, and `reason` must be text", usage)
    for name, value in scores.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= HIGHEST:
            raise BadAnswer(f"`{name}` must be a number from 0 to {HIGHEST}", usage)
    return reason[:1000], {name: scores[name] / HIGHEST for name in constitution.ids}


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)
