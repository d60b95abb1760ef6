"""Judgements already paid for, and what they cost: one SQLite file that survives a crash.

WAL and one commit per answer: what was written before a kill is there afterwards, and two processes may share the file. Rows are JSON, so
nothing needs unpickling.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS usage (id INTEGER PRIMARY KEY, row TEXT NOT NULL);
"""


class AnswerCache:
    """key -> JSON answer, and a ledger of every request's usage. path=None keeps both in memory. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(str(path) if path is not None else ":memory:", check_same_thread=False, timeout=30.0, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored answer; None if there is none or its row was damaged."""
        with self._lock:
            row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        try:
            value = json.loads(row[0]) if row else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))

    def record(self, prompt_tokens: int, completion_tokens: int, outcome: str, *, estimated: bool = False) -> None:
        """One request's usage, whether it gave an answer or failed. estimated: the server never said, so the worst case is booked."""
        row = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "outcome": outcome, "estimated": estimated}
        with self._lock:
            self._db.execute("INSERT INTO usage (row) VALUES (?)", (json.dumps(row),))

    def usage(self) -> list[dict[str, Any]]:
        """The ledger, oldest first: a resumed run goes on from its sum."""
        with self._lock:
            return [json.loads(row) for (row,) in self._db.execute("SELECT row FROM usage ORDER BY id")]

    def close(self) -> None:
        with self._lock:
            self._db.close()
