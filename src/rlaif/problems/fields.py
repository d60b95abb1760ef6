"""Reading one JSON object field by field, so that every complaint names the file, the line and the field."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rlaif.errors import ProblemFileError

# fmt: off
KNOWN_KEYS = frozenset({
    "id", "task_id", "question_id", "topic", "difficulty", "entry_point", "signature", "prompt", "preamble", "tests", "reference", "split",
    "source", "imported", "test_input", "expected_output", "test", "test_code", "canonical_solution", "code", "text", "test_list",
    "test_imports", "test_setup_code", "challenge_test_list",
})
TEST_KEYS = frozenset({"role", "input", "expected", "form"})
# fmt: on


@dataclass(frozen=True)
class Row:
    """One object of a problem file and where it stands (`line` counts from 1)."""

    data: dict[str, Any]
    path: object
    line: int | None

    def error(self, field: str | None, why: str, try_next: str = "") -> ProblemFileError:
        return ProblemFileError(self.path, self.line, field, why, try_next)

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without a default it is required and must not be blank."""
        value = self.data.get(key)
        if value is None:
            if default is not None:
                return default
            raise self.error(key, self._missing(key))
        if not isinstance(value, str):
            raise self.error(key, f"expected a string, found {kind(value)}")
        if default is None and not value.strip():
            raise self.error(key, "it is empty")
        return value

    def optional(self, key: str) -> str | None:
        """A string that is not blank, or None."""
        return self.text(key, "") if str(self.data.get(key) or "").strip() else None

    def strings(self, key: str) -> list[str]:
        """A list of strings; absent or null is []."""
        value = self.data.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"expected a list of strings, found {kind(value)}")
        return list(value)

    def choice(self, key: str, choices: Any, default: str) -> Any:
        """One of a `Literal`'s values."""
        value = self.data.get(key, default)
        known = get_args(choices)
        if value not in known:
            raise self.error(key, f"{value!r} is not one of {', '.join(known)}", nearest(str(value), known))
        return value

    def identifier(self, key: str) -> str | None:
        """A Python name, or None if absent."""
        value = self.optional(key)
        if value is not None and not value.isidentifier():
            raise self.error(key, f"{value!r} is not a Python name")
        return value

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, found {kind(value)}")
        return value

    def refuse_misspelt(self, known: frozenset[str] = KNOWN_KEYS, where: str = "") -> None:
        """Unknown keys are metadata and pass, but one that looks like a slip of a known key, which is absent, is an error.

        where: what the field's name begins with in the message, such as `tests[0].`.
        """
        for key in self.data:
            if key in known:
                continue
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.85 if known is KNOWN_KEYS else 0.8)
            if near and near[0] not in self.data:
                raise self.error(f"{where}{key}", "unknown field", f"did you mean '{near[0]}'?")

    def _missing(self, key: str) -> str:
        near = difflib.get_close_matches(key, self.data, n=1, cutoff=0.6)
        return f"it is missing (did you mean {key!r} by {near[0]!r}?)" if near else "it is missing"


def kind(value: object) -> str:
    """What JSON calls the value, for messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def nearest(value: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    return f"did you mean '{near[0]}'?" if near else ""


Layout = Literal["native", "humaneval", "mbpp"]


def layout_of(data: dict[str, Any]) -> Layout:
    """Which of the known layouts an object has. Ours and the seed's share one reader."""
    if "test_list" in data:
        return "mbpp"
    if "tests" not in data and ("test_code" in data or "test" in data):
        return "humaneval"
    return "native"
