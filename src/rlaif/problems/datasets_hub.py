"""Public data sets by name, and data sets on disk, through Hugging Face `datasets` (the extra `data`).

No pickle is read and no code of a data set runs: sets that need a loading script are read from their plain files instead.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rlaif.errors import EnvironmentFailure, ProblemFileError, RlaifError, UsageError
from rlaif.problems import contests, functions
from rlaif.problems.contests import SkipRow
from rlaif.problems.fields import Row, kind
from rlaif.problems.schema import problem_from_dict
from rlaif.problems.split import split_by_hash
from rlaif.types import Problem, Split

log = logging.getLogger("rlaif.problems")

Reader = Callable[[Row, Split], Problem]


def _plain(source: str) -> Reader:
    """HumanEval's and MBPP's layouts, which `schema` reads."""

    def read(row: Row, split: Split) -> Problem:
        problem = problem_from_dict(row.data, path=row.path, line=row.line, source=source)
        return problem if row.data.get("split") else replace(problem, split=split)

    return read


@dataclass(frozen=True)
class Source:
    """Where a set is and how its rows are read. `splits` maps ours to theirs; `files`: plain files to read instead of a script's set."""

    hub: str
    read: Reader
    splits: dict[Split, str]
    config: str | None = None
    files: dict[str, list[str]] = field(default_factory=dict)


_LIVE = [f"hf://datasets/livecodebench/code_generation_lite/test{n}.jsonl" for n in ("", 2, 3, 4, 5, 6)]
_APPS = {split: [f"hf://datasets/codeparrot/apps/{split}.jsonl"] for split in ("train", "test")}
_TACO = {split: [f"hf://datasets/BAAI/TACO/ALL/{split}-*.parquet"] for split in ("train", "test")}
_THREE: dict[Split, str] = {"train": "train", "validation": "validation", "test": "test"}

SOURCES: dict[str, Source] = {
    "humaneval": Source("openai/openai_humaneval", _plain("humaneval"), {"test": "test"}),
    "humaneval+": Source("evalplus/humanevalplus", _plain("humaneval+"), {"test": "test"}),
    "mbpp": Source("google-research-datasets/mbpp", _plain("mbpp"), _THREE, config="full"),
    "mbpp-sanitized": Source("google-research-datasets/mbpp", _plain("mbpp-sanitized"), _THREE, config="sanitized"),
    "mbpp+": Source("evalplus/mbppplus", functions.from_mbpp_plus, {"test": "test"}),
    "apps": Source("codeparrot/apps", contests.from_apps, {"train": "train", "test": "test"}, files=_APPS),
    "code_contests": Source("deepmind/code_contests", contests.from_code_contests, {"train": "train", "validation": "valid", "test": "test"}),
    "taco": Source("BAAI/TACO", contests.from_taco, {"train": "train", "test": "test"}, files=_TACO),
    "livecodebench": Source("livecodebench/code_generation_lite", contests.from_livecodebench, {"test": "test"}, files={"test": _LIVE}),
    "kodcode": Source("KodCode/KodCode-V1", functions.from_kodcode, {"train": "train"}),
    "acecode": Source("TIGER-Lab/AceCode-87K", functions.from_acecode, {"train": "train"}),
    "leetcode": Source("newfacade/LeetCodeDataset", functions.from_leetcode, {"train": "train", "test": "test"}),
    "bigcodebench": Source("bigcode/bigcodebench", functions.from_bigcodebench, {"test": "v0.1.4"}),
}
NAMES = tuple(SOURCES)
_ALIASES = {
    "humanevalplus": "humaneval+",
    "mbppplus": "mbpp+",
    "codecontests": "code_contests",
    "leetcodedataset": "leetcode",
    "acecode87k": "acecode",
}


def load_named(name: str, split: Split | None = None) -> list[Problem]:
    """The problems of a public set; rows that cannot be used are left out, and counted in the log with their reasons.

    A set that publishes one split alone (KodCode, AceCode) is split by a stable hash. Raises UsageError for an unknown name,
    EnvironmentFailure without the `datasets` package or a way to the data, ProblemFileError for rows of another layout.
    """
    key = _key(name)
    source = SOURCES[key]
    wanted: dict[Split, str] = {ours: theirs for ours, theirs in source.splits.items() if split in (None, ours)} or source.splits
    problems: list[Problem] = []
    for ours, theirs in wanted.items():
        rows = _fetch(key, source, theirs)
        problems += read_rows(rows, source.read, f"{source.hub} ({theirs})", ours)
    return split_by_hash(problems) if list(source.splits) == ["train"] else problems


def _key(name: str) -> str:
    plain = name.lower().rpartition("/")[2]
    squeezed = plain.replace("-", "").replace("_", "")
    for candidate in (plain, _ALIASES.get(squeezed, ""), squeezed, plain.replace("-", "_")):
        if candidate in SOURCES:
            return candidate
    near = difflib.get_close_matches(plain, SOURCES, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"builtin, a .jsonl file, a folder, or one of {', '.join(SOURCES)}"
    raise UsageError(f"No problems called '{name}'", "it is neither a file, nor a folder, nor a known data set", hint)


def read_rows(rows: Iterable[dict[str, Any]], read: Reader, where: str, split: Split) -> list[Problem]:
    """Normalise rows. A row that its reader skips is logged; a set of which nothing is left is an error."""
    return _read_numbered(enumerate(rows, 1), read, where, split)


def _read_numbered(rows: Iterable[tuple[int, dict[str, Any]]], read: Reader, where: str, split: Split) -> list[Problem]:
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for line, data in rows:
        try:
            problems.append(read(Row(dict(data), where, line), split))
        except SkipRow as reason:
            skipped[str(reason)] += 1
    for reason, count in skipped.most_common(5):
        log.warning("%s: %d problems left out: %s", where, count, reason)
    if not problems:
        raise ProblemFileError(where, None, None, "it holds no problem that can be used", "see the log for the reasons")
    return problems


def _fetch(name: str, source: Source, split: str) -> Iterable[dict[str, Any]]:
    datasets = _datasets()
    try:
        if source.files:
            kind_of_file = "parquet" if source.files[split][0].endswith(".parquet") else "json"
            return datasets.load_dataset(kind_of_file, data_files=source.files[split], split="train")
        return datasets.load_dataset(source.hub, source.config, split=split)
    except Exception as error:  # the network, the Hub, the cache and the file system each raise their own
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        hint = f"go online once (it is then cached), or save {source.hub} elsewhere and give its folder or .jsonl file to --problems"
        raise EnvironmentFailure(f"The data set '{name}' cannot be had", why, hint) from error


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise EnvironmentFailure("Data sets by name need the package `datasets`", str(error), "pip install 'rlaif[data]'") from None


def load_folder(path: Path) -> list[Problem]:
    """A folder that `datasets` wrote (`save_to_disk`), or one of .parquet and .jsonl files, whose names may hold a split's.

    The layout is told from the columns. Splits are what the rows say, else what the tables are called, else a stable hash.
    Raises ProblemFileError if the folder holds nothing of that, for a file that cannot be read, and for an id that is used twice.
    """
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    named = False
    for split, where, rows in _tables(path):
        iterator = iter(rows)
        first = next(iterator, None)
        if first is None:
            continue
        found = _read_numbered(chain([first], iterator), reader_for(set(first[1]), where), where, split or "train")
        for problem in found:
            if problem.id in seen:
                raise ProblemFileError(where, None, "id", f"{problem.id!r} was used in {seen[problem.id]} already", "make the ids differ")
            seen[problem.id] = where
        problems += found
        named = named or split is not None or bool(first[1].get("split"))
    if not problems:
        raise ProblemFileError(path, None, None, "there is no data set in this folder", "expected save_to_disk's files, .parquet or .jsonl")
    return problems if named else split_by_hash(problems)


def _tables(path: Path) -> Iterator[tuple[Split | None, str, Iterable[tuple[int, dict[str, Any]]]]]:
    """(split by its name, where, numbered rows) of each table."""
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        loaded = _opened(path, lambda: _datasets().load_from_disk(str(path)))
        for name, table in loaded.items() if hasattr(loaded, "items") else [("", loaded)]:
            yield _split_in(name), f"{path} ({name})" if name else str(path), enumerate(table, 1)
        return
    for file in sorted(path.rglob("*")):
        if file.suffix == ".parquet":
            table = _opened(file, lambda file=file: _datasets().load_dataset("parquet", data_files=str(file), split="train"))
            yield _split_in(file.stem), str(file), enumerate(table, 1)
        elif file.suffix in (".jsonl", ".ndjson"):
            from rlaif.problems.load import read_objects

            yield _split_in(file.stem), str(file), ((line, _object(file, line, value)) for line, value in read_objects(file))


def _opened(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RlaifError:
        raise
    except Exception as error:  # arrow, pandas, the file system and `datasets` each raise their own for a damaged file
        why = str(error).splitlines()[0] if str(error) else ""
        raise ProblemFileError(path, None, None, f"`datasets` cannot read it: {type(error).__name__}: {why}", "save it again") from error


def _object(file: Path, line: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProblemFileError(file, line, None, f"expected a JSON object, found {kind(value)}")
    return value


def _split_in(name: str) -> Split | None:
    start = name.lower().split("-")[0].split("_")[0]
    names: dict[str, Split] = {
        "train": "train",
        "test": "test",
        "validation": "validation",
        "valid": "validation",
        "val": "validation",
        "dev": "validation",
    }
    return names.get(start)


def reader_for(columns: set[str], where: str) -> Reader:
    """The reader for a table, told by columns that only its layout has."""
    telling: list[tuple[set[str], Reader]] = [
        ({"input_output", "question", "solutions", "raw_tags"}, contests.from_taco),
        ({"input_output", "question", "solutions"}, contests.from_apps),
        ({"public_tests", "private_tests", "generated_tests"}, contests.from_code_contests),
        ({"public_test_cases", "private_test_cases"}, contests.from_livecodebench),
        ({"question", "solution", "test", "test_info"}, functions.from_kodcode),
        ({"question", "test_cases"}, functions.from_acecode),
        ({"problem_description", "starter_code", "entry_point", "test"}, functions.from_leetcode),
        ({"complete_prompt", "libs", "test"}, functions.from_bigcodebench),
        ({"test_list", "test", "code"}, functions.from_mbpp_plus),
    ]
    for needed, reader in telling:
        if needed <= columns:
            return reader
    if "prompt" in columns or "text" in columns:
        return _plain(Path(where).stem)
    raise ProblemFileError(where, None, None, f"its layout is not known: columns {', '.join(sorted(columns))}", "convert it to {prompt, tests, ...}")
