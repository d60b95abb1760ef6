"""Feedback already given, kept on disk, so that a run resumed after a kill ends where the uninterrupted one ends.

Sampling is repeated exactly from the checkpoint's random state; CPU times and remote judges are not repeatable, so what they said
is written down as it comes and replayed. One JSON object a line; a torn last line is ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from rlaif.types import Feedback

_FEEDBACK = TypeAdapter(Feedback)


class FeedbackJournal:
    """Maps (episode, place in the batch, code) to feedback. Entries of episodes that a checkpoint covers are dropped by `trim`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Feedback] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self._entries[row["key"]] = _FEEDBACK.validate_python(row["feedback"])

    @staticmethod
    def keys(episode: int, codes: Sequence[str]) -> list[str]:
        """One key per completion of an episode."""
        return [f"{episode}:{place}:{hashlib.sha256(code.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}" for place, code in enumerate(codes)]

    def get(self, key: str) -> Feedback | None:
        return self._entries.get(key)

    def put(self, keys: Sequence[str], feedbacks: Sequence[Feedback]) -> None:
        """Append a batch. Infrastructure failures are not kept: another try may succeed."""
        with self.path.open("a", encoding="utf-8") as file:
            for key, feedback in zip(keys, feedbacks, strict=True):
                if feedback.reward is None:
                    continue
                self._entries[key] = feedback
                file.write(json.dumps({"key": key, "feedback": _FEEDBACK.dump_python(feedback, mode="json")}) + "\n")

    def trim(self, episode: int) -> None:
        """Forget episodes up to and including this one."""
        self._entries = {key: value for key, value in self._entries.items() if int(key.split(":", 1)[0]) > episode}
        self.path.write_text("", encoding="utf-8")
        entries = list(self._entries.items())
        self.put([key for key, _ in entries], [value for _, value in entries])
