"""`load_problems`: the built-in set, a JSONL file, a data set on disk, or a public data set by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlaif.errors import ProblemFileError, UsageError
from rlaif.problems import split as splits
from rlaif.problems.schema import problem_from_dict
from rlaif.types import DIFFICULTIES, Problem, Split

DATA = Path(__file__).parent / "data"
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, zip, bzip2, xz and zstandard begin."""


def load_problems(name: str, *, split: Split | None = None, limit: int | None = None) -> list[Problem]:
    """The problems of `name`, in a fixed order.

    name: `builtin`, `builtin/LEVEL` (a difficulty, such as `builtin/intro`), `builtin/TOPIC`; `generated`, `generated/intro` or `generated/FAMILY`
    (fresh ones of the procedural families); a `.jsonl` or `.json` file (our layout, the seed's, HumanEval's or MBPP's), a folder written by Hugging
    Face `datasets` (or holding .parquet or .jsonl files), or a public data set's name (`problems.datasets_hub.NAMES`).
    split: only these; None: all of them. A file that names no splits has a fifth of its problems held out as test by a stable hash;
    one with fewer than 10 problems is too small for that, and all of it belongs to every split.
    limit: at most so many, the first ones.
    Raises ProblemFileError (file, line, field), UsageError for an unknown name, EnvironmentFailure if a public set cannot be had.
    """
    if name == "builtin" or name.startswith("builtin/"):
        problems = list(_builtin(name.partition("/")[2]))
    elif (name == "generated" or name.startswith("generated/")) and not Path(name).exists():
        problems = list(_generated(name.partition("/")[2]))
    else:
        problems = _from_path(Path(name), split) if _looks_like_path(name) else _from_hub(name, split)
    if split is not None:
        problems = [problem for problem in problems if problem.split == split]
        if not problems:
            raise UsageError(f"{name} has no problem in its '{split}' split", "", "choose another split, or all of them")
    return problems[:limit]


def builtin_topics() -> list[str]:
    """The names of the built-in topics."""
    return sorted(path.stem for path in DATA.glob("*.jsonl"))


def pass_rates_by_model() -> dict[str, dict[str, float]]:
    """Pass rates in [0, 1] that models were seen to have on built-in problems (benchmarks/pass_rates.py): by model, then by problem's id."""
    path = DATA / "pass_rates.json"
    if not path.exists():
        return {}
    return {model: found["rates"] for model, found in json.loads(path.read_text(encoding="utf-8"))["models"].items()}


def measured_pass_rates() -> dict[str, float]:
    """Those of the default model, the weakest there is: where a curriculum should start looking."""
    return pass_rates_by_model().get("smollm2-135m", {})


@lru_cache(maxsize=64)
def _builtin(topic: str) -> tuple[Problem, ...]:
    if topic and topic not in (*DIFFICULTIES, *builtin_topics()):
        raise UsageError(f"No built-in level or topic '{topic}'", "", f"one of {', '.join((*DIFFICULTIES, *builtin_topics()))}")
    if topic:
        return tuple(problem for problem in _builtin("") if topic in (problem.topic, problem.difficulty))
    problems = [problem for path in sorted(DATA.glob("*.jsonl")) for problem in read_jsonl(path, source="builtin")]
    return tuple(splits.with_builtin_split(problems))


@lru_cache(maxsize=8)
def _generated(name: str) -> tuple[Problem, ...]:
    from rlaif.problems.generate import FAMILIES, named

    try:
        return tuple(splits.split_by_hash(named(name)))
    except ValueError as error:
        raise UsageError(f"No generated problems '{name}'", str(error).split(":")[0], f"intro, or one of {', '.join(FAMILIES)}") from None


def read_jsonl(path: Path, *, source: str | None = None) -> list[Problem]:
    """Every problem of a JSONL file (or a JSON array). Blank lines are skipped; a second use of an id is an error."""
    seen: dict[str, int] = {}
    problems: list[Problem] = []
    for line, obj in read_objects(path):
        problem = problem_from_dict(obj, path=path, line=line, source=source)
        if problem.id in seen:
            raise ProblemFileError(path, line, "id", f"{problem.id!r} was used on line {seen[problem.id]} already")
        seen[problem.id] = line
        problems.append(problem)
    if not problems:
        raise ProblemFileError(path, None, None, "it holds no problem")
    return problems


def read_objects(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, object) for each line that is not blank; a `.json` file may hold one array, whose items count as lines."""
    try:
        with path.open("rb") as stream:
            if path.suffix == ".json":
                yield from enumerate(_array(path, "".join(_text(path, line, raw) for line, raw in enumerate(stream, 1))), 1)
                return
            for line, raw in enumerate(stream, 1):
                if (text := _text(path, line, raw)).strip():
                    yield line, _decode(path, line, text)
    except OSError as error:
        raise ProblemFileError(path, None, None, error.strerror or str(error), "check the path") from None


def _text(path: Path, line: int, raw: bytes) -> str:
    """Decoded by the line: a stream that decodes by the block knows neither the line nor the byte of what is wrong."""
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        hint = "it is compressed: unpack it first" if line == 1 and raw.startswith(_COMPRESSED) else "save the file as UTF-8"
        raise ProblemFileError(path, line, None, f"it is not UTF-8 text ({error.reason} at byte {error.start + 1} of the line)", hint) from None


def _decode(path: Path, line: int, text: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        hint = "this looks like one JSON document over several lines: write one object a line" if text.strip() in "[{" else ""
        raise ProblemFileError(path, line, None, f"it is not JSON: {error.msg} at column {error.colno}", hint) from None
    except (ValueError, RecursionError) as error:
        raise ProblemFileError(path, line, None, f"it cannot be read: {error}") from None
    if "\\u" in text:
        _refuse_half_characters(path, line, value)
    return value


def _refuse_half_characters(path: Path, line: int, value: Any) -> None:
    """JSON can spell half of a character (`\\ud800`), which can be neither printed, written nor run."""
    for field, part in value.items() if isinstance(value, dict) else [(None, value)]:
        try:
            f"{field}{json.dumps(part, ensure_ascii=False)}".encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise ProblemFileError(path, line, ascii(field)[1:-1] if field else None, f"{half!r} is half of a character", "leave it out") from None


def _array(path: Path, text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemFileError(path, error.lineno, None, f"it is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise ProblemFileError(path, None, None, f"it cannot be read: {error}") from None
    items = value if isinstance(value, list) else [value]
    for line, item in enumerate(items, 1):
        _refuse_half_characters(path, line, item)
    return items


def _looks_like_path(name: str) -> bool:
    return Path(name).exists() or Path(name).suffix in {".jsonl", ".json", ".ndjson"} or name.startswith((".", "/", "~"))


def _from_path(path: Path, split: Split | None) -> list[Problem]:
    path = path.expanduser()
    if path.is_dir():
        from rlaif.problems.datasets_hub import load_folder

        return load_folder(path)
    if not path.exists():
        raise ProblemFileError(path, None, None, "there is no such file", "check the path, or use --problems builtin")
    problems = read_jsonl(path)
    names_split = any("split" in obj for _, obj in read_objects(path) if isinstance(obj, dict))
    if names_split or any(problem.imported for problem in problems):
        return problems
    if len(problems) < splits.SMALLEST_FILE_TO_SPLIT:
        return [replace(problem, split=split or "train") for problem in problems]
    return splits.split_by_hash(problems)


def _from_hub(name: str, split: Split | None) -> list[Problem]:
    from rlaif.problems.datasets_hub import load_named

    return load_named(name, split)
