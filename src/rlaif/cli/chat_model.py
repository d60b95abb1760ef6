"""What the chat asks of a model: a problem out of a sentence, and code that appears as it is written."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlaif.errors import UsageError
from rlaif.problems import pysource
from rlaif.types import FinishReason, Problem, TestCase

_SIGNATURE = re.compile(r"`?\b([A-Za-z_]\w*)\(([^()`]*)\)`?")
_NAMED = re.compile(r"\b(?:called|named)\s+[`'\"]?([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Written:
    """What a model answered: the code, and whether it was cut off."""

    label: str
    code: str
    finish_reason: FinishReason


def problem_of(task: str, number: int) -> Problem:
    """A task in plain words as a problem. A name and arguments that it mentions, `add(a, b)`, open the answer for the model."""
    name, signature = None, ""
    for found in _SIGNATURE.finditer(task):
        header = f"def {found[1]}({found[2]}):"
        if pysource.parses(f"{header}\n    pass"):
            name, signature = found[1], header
            break
    if name is None and (found := _NAMED.search(task)):
        name = found[1]
    return Problem(f"chat/{number}", task, entry_point=name, signature=signature, source="chat")


def with_code(problem: Problem, code: str, tests: tuple[TestCase, ...] = ()) -> Problem:
    """The problem as graders need it: the function that the code defines, if the task named none, and the tests typed so far."""
    names = defined(code)
    entry_point = problem.entry_point if problem.entry_point in names or not names else names[0]
    return dataclasses.replace(problem, entry_point=entry_point, tests=tests)


def defined(code: str) -> list[str]:
    """The functions and classes that the code defines, in order."""
    return [name for name in dict.fromkeys(pysource.top_level_names(code)) if pysource.definition(code, name) is not None]


class Writer:
    """A loaded model that writes code. torch comes in with the first one."""

    def __init__(self, source: str, label: str, *, dtype: Any, device: Any, max_new_tokens: int, temperature: float, seed: int) -> None:
        """Raises ModelNotFound."""
        import torch

        from rlaif.policy.model import load_policy

        self.label, self.max_new_tokens, self.temperature = label, max_new_tokens, temperature
        self.policy = load_policy(source, dtype=dtype, device=device, trainable=False)
        self.generator = torch.Generator().manual_seed(seed)

    def write(self, problem: Problem, *, greedy: bool, on_code: Callable[[str], None] = lambda code: None) -> Written:
        """One answer. `on_code` gets all the code so far, again and again. Raises UsageError if the task does not fit the model's context."""
        from rlaif.policy.sampler import SamplingParams, context_length
        from rlaif.problems.prompting import build_prompt, encode_prompt, extract_code

        tokenizer = self.policy.tokenizer
        prompt = build_prompt(problem, tokenizer)
        ids = encode_prompt(prompt, tokenizer)
        context = context_length(self.policy)
        room = self.max_new_tokens if context is None or self.policy.is_encoder_decoder else min(self.max_new_tokens, context - len(ids))
        if room < 1:
            raise UsageError("The task is too long for this model", f"it has {len(ids)} tokens and the model's context is {context}", "fewer words")
        params = SamplingParams(max_new_tokens=room, temperature=self.temperature, greedy=greedy, stop_texts=prompt.stop_texts)
        reason: FinishReason = "length"
        text = ""
        for text, reason in self._stream(ids, params):  # noqa: B007  # the last ones are the answer
            on_code(extract_code(problem, prompt, text))
        code = extract_code(problem, prompt, text)
        return Written(self.label, _without_torn_end(code) if reason == "length" else code, reason)

    def _stream(self, ids: list[int], params: Any) -> Any:
        """(all text so far, finish reason) after every token."""
        import torch

        from rlaif.policy.decoders import make_decoder
        from rlaif.policy.sampler import choose, sample

        if self.policy.is_encoder_decoder:
            only = sample(self.policy, [ids], 1, params, self.generator)[0][0]
            yield self._decode(only.token_ids), only.finish_reason
            return
        with torch.inference_mode():
            uniform_T = torch.rand(params.max_new_tokens, generator=self.generator, dtype=torch.float64)
            decoder = make_decoder(self.policy, len(ids), params.max_new_tokens, 1, None, 1)
            logits = decoder.admit([ids], 1)
            tokens: list[int] = []
            for step in range(params.max_new_tokens):
                token = int(choose(logits, params, uniform_T[step : step + 1].to(logits.device))[0])
                tokens.append(token)
                text = self._decode(tokens)
                if token in self.policy.stop_token_ids:
                    yield text, "eos"
                    return
                if any(stop in text for stop in params.stop_texts):
                    yield text, "stop"
                    return
                yield text, "length"
                if step + 1 < params.max_new_tokens:
                    logits = decoder.step([token])

    def _decode(self, tokens: Any) -> str:
        return self.policy.tokenizer.decode(tokens, skip_special_tokens=True)


def _without_torn_end(code: str) -> str:
    """Code that was cut off in mid-sentence, without the unfinished lines at its end, if what is left defines something."""
    lines = code.splitlines()
    for end in range(len(lines), 0, -1):
        kept = "\n".join(lines[:end]) + "\n"
        if defined(kept):
            return kept
    return code


# -- what a person types ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypedTest:
    """A line that is Python: a call whose value is shown, or, with `expected`, compared."""

    __test__ = False

    source: str
    called: tuple[str, ...]
    expected: str | None = None

    @property
    def case(self) -> TestCase | None:
        """As a test that counts, if it says what it expects."""
        return None if self.expected is None else TestCase("graded", self.source, self.expected)


def typed_test(line: str) -> TypedTest | None:
    """Read `add(2, 3)`, `add(2, 3) == 5`, `5 == add(2, 3)`, `assert add(2, 3) == 5`, `s = Stack(); s.pop()`; None for anything else."""
    tree = pysource.parse_or_none(line.strip())
    if tree is None or not tree.body:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    last = tree.body[-1]
    value = last.value if isinstance(last, ast.Expr) else last.test if isinstance(last, ast.Assert) else None
    if not calls or value is None:
        return None
    called = tuple(node.func.id for node in calls if isinstance(node.func, ast.Name))
    before = [ast.unparse(statement) for statement in tree.body[:-1]]
    match value:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            for actual, expected in ((left, right), (right, left)):
                if pysource.literal_error(ast.unparse(expected)) is None and any(isinstance(node, ast.Call) for node in ast.walk(actual)):
                    return TypedTest("\n".join([*before, ast.unparse(actual)]), called, ast.unparse(expected))
    return TypedTest("\n".join([*before, ast.unparse(value)]), called)
