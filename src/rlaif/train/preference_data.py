"""Preference pairs on disk: Hugging Face's explicit-prompt format, one JSON object a line, with columns of ours beside it.

    prompt, chosen, rejected     texts, or lists of {"role", "content"} where the model has a chat template; any trainer reads these three
    label_probability            how likely `chosen` is the better one, from 0.5 (nobody knows) to 1 (tests say so)
    source                       "execution" or "judge"; principle: what the judge was asked, None for execution
    problem_id, round            where the pair comes from
    chosen_code, rejected_code   the programs in the two answers
    chosen_graded, ...           whether each passes its graded tests; None where there are none
    chosen_held_out, ...         whether each passes its held-out tests: for measuring labels, never a part of them

A file with prompt, chosen and rejected alone (anyone's) is read as well: each label is then taken for certain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif.errors import ProblemFileError, UsageError
from rlaif.problems import load_problems
from rlaif.problems.prompting import FENCE_START, build_prompt, chat_messages, last_code_block
from rlaif.runs.files import dumps, read_lines, write_text_atomic
from rlaif.runs.rows import problem_from_row
from rlaif.types import Completion, Problem

Side = str | list[dict[str, str]]
Source = Literal["execution", "judge"]
FILE = "preferences.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference; the fields are the columns of the file."""

    prompt: Side
    chosen: Side
    rejected: Side
    label_probability: float = 1.0
    source: Source = "execution"
    principle: str | None = None
    problem_id: str = ""
    round: int = 0
    chosen_code: str = ""
    rejected_code: str = ""
    chosen_graded: bool | None = None
    rejected_graded: bool | None = None
    chosen_held_out: bool | None = None
    rejected_held_out: bool | None = None


def prompt_side(problem: Problem, tokenizer: Any) -> Side:
    """What the policy was asked: messages where there is a chat template, else the text it continued."""
    return _accepted_messages(problem, tokenizer) if getattr(tokenizer, "chat_template", None) else build_prompt(problem, tokenizer).text


def answer_side(problem: Problem, completion: Completion, tokenizer: Any) -> Side:
    """What the policy answered, with the opening that was written for it: in a chat, the assistant's whole turn."""
    if not getattr(tokenizer, "chat_template", None):
        return completion.text
    return [{"role": "assistant", "content": FENCE_START + build_prompt(problem, tokenizer).response_prefix + completion.text}]


def _accepted_messages(problem: Problem, tokenizer: Any) -> list[dict[str, str]]:
    """The messages, in one user turn where the template refuses a system turn (as `apply_chat_template` does for sampling)."""
    messages = chat_messages(problem)
    try:
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template is a third party's program, and each refuses in its own way
        return [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]
    return messages


def to_row(pair: Pair) -> dict[str, Any]:
    return asdict(pair)


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the file whole, atomically."""
    write_text_atomic(path, "".join(dumps(to_row(pair)) + "\n" for pair in pairs))


def preference_file(source: Path | None, prog: str) -> Path:
    """The file that `--preferences` means. Raises UsageError where there is none."""
    if source is None:
        raise UsageError(f"{prog} needs preference pairs", "", f"{prog} --preferences FOLDER, as written by `rlaif prefer collect`")
    path = source / FILE if source.is_dir() else source
    if not path.is_file():
        what = f"{source} holds no {FILE}" if source.is_dir() else f"No preference file at {source}"
        raise UsageError(what, "", "a folder written by `rlaif prefer collect`, or a JSONL file with prompt, chosen and rejected")
    return path


def read_pairs(path: Path, limit: int | None = None) -> list[Pair]:
    """The pairs of a file. Raises ProblemFileError with the line and the column that cannot be used, or if there is no pair."""
    pairs: list[Pair] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and (limit is None or len(pairs) < limit):
                    pairs.append(_pair(line, path, number))
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemFileError(path, None, None, str(error)) from None
    if not pairs:
        raise ProblemFileError(path, None, None, "it holds no pair", "`rlaif prefer collect` with more --rounds")
    return pairs


def _pair(line: str, path: Path, number: int) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ProblemFileError(path, number, None, f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ProblemFileError(path, number, None, "it is not a JSON object")
    sides = [_side(row.get(name), name, path, number) for name in ("prompt", "chosen", "rejected")]
    if len({isinstance(side, str) for side in sides}) > 1:
        raise ProblemFileError(path, number, "chosen", "prompt, chosen and rejected must all be texts, or all lists of messages")
    probability = row.get("label_probability", 1.0)
    if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0.5 <= probability <= 1:
        raise ProblemFileError(path, number, "label_probability", f"{probability!r} is no number from 0.5 to 1", "swap chosen and rejected below 0.5")
    if row.get("source", "execution") not in ("execution", "judge"):
        raise ProblemFileError(path, number, "source", f"{row['source']!r} is neither 'execution' nor 'judge'")
    known = {name: row[name] for name in Pair.__dataclass_fields__ if name in row}
    pair = Pair(**{**known, "prompt": sides[0], "chosen": sides[1], "rejected": sides[2], "label_probability": float(probability)})
    codes = {f"{name}_code": row.get(f"{name}_code") or program_in(side) for name, side in (("chosen", sides[1]), ("rejected", sides[2]))}
    identifier = pair.problem_id or hashlib.sha256(json.dumps(sides[0]).encode()).hexdigest()[:16]
    return Pair(**{**asdict(pair), **codes, "problem_id": identifier})


def _side(value: Any, name: str, path: Path, number: int) -> Side:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m for m in value):
        return value
    why = "it is missing: an explicit prompt is needed" if name == "prompt" and value is None else "it is neither a text nor a list of messages"
    raise ProblemFileError(path, number, name, why, '"prompt", "chosen" and "rejected" as in Hugging Face\'s preference format')


def text_of(side: Side) -> str:
    """A side as one text."""
    return side if isinstance(side, str) else "\n\n".join(message["content"] for message in side)


def program_in(side: Side) -> str:
    """The program in an answer: its last code block, or all of it."""
    text = text_of(side)
    return last_code_block(text) or text


def problems_of(pairs: Sequence[Pair], path: Path, name: str | None) -> dict[str, Problem]:
    """The problem of each pair by its id: from `problems.jsonl` beside the file, from the set `name`, or else made of the prompt's words."""
    found = {row["id"]: problem_from_row(row) for _, row in read_lines(path.parent / "problems.jsonl")}
    if name is not None:
        found |= {problem.id: problem for problem in load_problems(name)}
    for pair in pairs:
        if pair.problem_id not in found:
            asked = pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1]["content"]
            found[pair.problem_id] = Problem(pair.problem_id, asked)
    return found
