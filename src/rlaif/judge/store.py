"""Labels that cost minutes to make, kept as they are made: a JSONL file, and beside it how far it is good.

A crash may leave half a line behind; the note beside the file says how many bytes are whole, and the rest is cut off on opening.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlaif.errors import UsageError
from rlaif.judge.labelled import Labelled, read_labelled, to_row


class LabelStore:
    """A file of labelled programs that is written problem by problem and can be gone on with.

    made_with: what the labels depend on (model, temperature, ...). A file made with something else is an error, not a mixture.
    """

    def __init__(self, path: Path, made_with: dict[str, object]) -> None:
        self.path, self._note = path, path.with_suffix(".progress.json")
        self.made_with = json.loads(json.dumps(made_with))
        self.done: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        if self._note.is_file():
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note["made_with"] != self.made_with:
                raise UsageError(
                    f"{path} was made with other settings", f"{note['made_with']} there, {self.made_with} now", "another folder, or delete the file"
                )
            self.done, size = set(note["problems"]), note["bytes"]
        with path.open("ab") as stream:
            stream.truncate(min(size, path.stat().st_size))

    def add(self, problems: Iterable[str], items: Iterable[Labelled]) -> int:
        """Write the items, then note that these problems are done; returns how many items there were."""
        count = 0
        with self.path.open("a", encoding="utf-8") as stream:
            for item in items:
                stream.write(json.dumps(to_row(item), ensure_ascii=False) + "\n")
                count += 1
            stream.flush()
            os.fsync(stream.fileno())
        self.done |= set(problems)
        note = {"made_with": self.made_with, "bytes": self.path.stat().st_size, "problems": sorted(self.done)}
        draft = self._note.with_suffix(".tmp")
        draft.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        draft.replace(self._note)
        return count

    def items(self) -> Iterator[Labelled]:
        """Everything written so far."""
        return read_labelled(self.path)
