"""From what a model said in somebody else's trainer to a program. These trainers open no code fence, so the reply brings its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.problems.prompting import python_blocks

_SPECIAL = re.compile(r"(?:<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<eos>|<pad>|<end_of_turn>)\Z")
_LONGEST_SPECIAL = 44
_TAIL_WORDS, _TAIL_CHARS = 12, 400
"""How much of a prompt's end must be found in a query whose beginning was cut off."""


def code_of_reply(text: str) -> str:
    """The last complete code block of Python. Without one: what follows a fence that was never closed, or the whole text where there is no fence.

    Thinking (everything up to `</think>`) and special tokens at the end are no part of the reply. A reply that is still thinking when it
    ends has no code, so the empty program is what gets scored. Takes time linear in the text, whatever the text is.
    """
    thought, _, said = text.rpartition("</think>")
    if not thought and "<think>" in said:
        return ""
    text = _without_specials(said)
    complete, unclosed = python_blocks(text)
    if complete is not None:
        return complete
    return text if unclosed is None else unclosed


def _without_specials(text: str) -> str:
    text = text.rstrip()
    while found := _SPECIAL.search(text[-_LONGEST_SPECIAL:]):
        text = text[: len(text) - len(found[0])].rstrip()
    return text + "\n"


def text_of(completion: Any) -> str:
    """A completion as text: a string, or a list of messages, whose assistant turns count (contents may be lists of parts)."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        return _content(completion.get("content"))
    if isinstance(completion, Sequence):
        return "\n".join(_content(message.get("content")) for message in completion if message.get("role", "assistant") == "assistant")
    raise TypeError(f"a completion is a string or a list of messages, not {type(completion).__name__}")


def _content(content: Any) -> str:
    if content is None:
        return ""  # a turn of tool calls only
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))


def without_prompt(query: str, prompt: str) -> str | None:
    """The response in `query` = prompt + response, or None if the prompt is not in there.

    OpenRLHF decodes its tokens again, so that the query may begin with a token that the prompt has not, differ from it in white space, or
    lack the beginning of a long prompt.
    """
    if query.startswith(prompt):
        return query[len(prompt) :]
    place = query.find(prompt)
    if place >= 0:
        return query[place + len(prompt) :]
    words = prompt[-_TAIL_CHARS:].split()[-_TAIL_WORDS:]
    if not words:
        return query
    found = re.search(r"\s*".join(map(re.escape, words)), query)
    return query[found.end() :] if found else None
