"""The local judge: a causal language model asked one yes-or-no question per principle, read from its logits.

The score of a question is the expectation of {No: 0, Yes: 1} under the softmax over the score tokens' logits (arXiv 2503.03064,
d-RLAIF in arXiv 2309.00267), in float32. Nothing is sampled and nothing is parsed, so no answer can be malformed.

The shared prefix (chat template, rubric, and the problem where several items share it) is run once and its keys and values reused. All
questions about one program ride in one row: each attends to the prefix, the code and itself, but not to the other questions.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rlaif.errors import JudgeUnavailable
from rlaif.judge.calibrate import IDENTITY, Calibration
from rlaif.judge.constitution import BELIEF, Constitution, Principle
from rlaif.judge.prompts import Segments, code_text, delimiter, problem_text, question_text, rubric_text
from rlaif.judge.protocol import JudgeItem, failed_report, refused_report
from rlaif.judge.sanitise import Refusal, Sanitised, sanitise
from rlaif.policy.reader import Prefix, Reader, Text
from rlaif.types import JudgeReport

KeysAndValues = list[tuple[Tensor, Tensor]]
"""Of every layer, as transformers keeps them: [1, kv heads, tokens, head size]."""
_SHARED_FROM = 3
"""Items of one problem from which its own prefix is worth a forward pass of its own."""
_LEAST_ROOM = 64
"""Tokens of code that any judge must have room for."""
_REMEMBERED = 20_000
_DISHONEST = 0.5
"""What the honesty principle keeps of its score when the original text spoke to a grader."""


class LocalJudge:
    """Pointwise judge over a model and its tokenizer.

    principles: which of the constitution's are asked; the belief (`correctness`) always is. `context` is entered around each forward pass
    (an adapter switch, autocast). `share_prefix=False` runs every prompt whole: the same scores, for comparison of cost. `reader`: of the same
    weights, for models that it knows; then the forward passes are its own, about 1.3 times as fast on CPU.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        constitution: Constitution,
        *,
        name: str = "local",
        principles: Sequence[str] | None = None,
        calibration: Calibration = IDENTITY,
        batch_size: int = 16,
        share_prefix: bool = True,
        secret: bytes | None = None,
        max_code_tokens: int = 1024,
        context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        reader: Reader | None = None,
    ) -> None:
        self.model, self.tokenizer, self.constitution = model, tokenizer, constitution
        self.name, self.calibration, self.batch_size, self.share_prefix = name, calibration, batch_size, share_prefix
        self.max_code_tokens, self.context, self.reader = max_code_tokens, context, reader
        self.secret = secret or secrets.token_bytes(16)
        wanted = set(constitution.ids if principles is None else principles) | {BELIEF}
        self.principles = tuple(principle for principle in constitution.principles if principle.id in wanted)
        self.score_token_ids = score_token_ids(tokenizer)
        self._special = tuple(token for token in map(str, getattr(tokenizer, "all_special_tokens", ())) if len(token) > 1)
        self._head, self._tail = chat_frame(tokenizer, rubric_text(self.principles))
        self._head_ids = self._ids(self._head, special=True)
        self._question_ids = [
            self._ids(question_text(principle), special=False) + self._ids(self._tail, special=True) for principle in self.principles
        ]
        # The score tokens' logits are computed here, in float32; the product with the whole vocabulary is left out.
        self._own_head = getattr(model.get_output_embeddings(), "weight", None) is not None and not _rescales_logits(model.config)
        self._head_cache: KeysAndValues | Prefix | None = None
        self._memo: OrderedDict[tuple[int, ...], list[float]] = OrderedDict()

    # Public -------------------------------------------------------------------------------------------------------------------------

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]:
        """One report per item, in order. Equal programs for one problem are asked about once."""
        reports: list[JudgeReport | None] = [None] * len(items)
        asked: dict[tuple[str, str, str], list[tuple[int, Sanitised]]] = {}
        for index, (problem, code) in enumerate(items):
            shown = sanitise(problem, code)
            if isinstance(shown, Refusal):
                reports[index] = refused_report(shown, self.name)
            else:
                asked.setdefault((problem.id, problem.prompt, shown.code), []).append((index, shown))
        rows: list[tuple[tuple[str, str, str], list[int], list[int]]] = []
        for key, users in asked.items():
            problem = items[users[0][0]].problem
            segments = self.segments(problem, key[2])
            problem_ids, code_ids = self._ids(segments.problem, special=False), self._ids(segments.code, special=False)
            room = self._room(len(problem_ids))
            if len(code_ids) > room:
                why = f"{len(code_ids)} tokens of code; the judge reads at most {room}"
                short = room < _LEAST_ROOM  # the task itself fills the judge's context: not the code's doing
                report = failed_report(why, self.name) if short else refused_report(Refusal("overlong", why), self.name)
                for index, _ in users:
                    reports[index] = report
                continue
            rows.append((key, problem_ids, code_ids))
        try:
            answers: list[list[float] | str] = list(self._remembered([(problem_ids, code_ids) for _, problem_ids, code_ids in rows]))
        except (RuntimeError, MemoryError) as error:  # out of memory, a device gone: nobody's verdict on any of them
            answers = [f"judge model failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"] * len(rows)
        for (key, problem_ids, code_ids), answer in zip(rows, answers, strict=True):
            for index, shown in asked[key]:
                reports[index] = self._report(answer, shown, len(problem_ids) + len(code_ids))
        return [report for report in reports if report is not None]

    def segments(self, problem: Any, code: str) -> Segments:
        """The prompt for sanitised code, in parts; joined they are exactly what the model reads."""
        mark = delimiter(self.secret, problem, code)
        return Segments(
            head=self._head,
            problem=f"Task:\n{problem_text(problem, self._special)}\n",
            code=code_text(code, mark, self._special),
            questions=tuple(question_text(principle) + self._tail for principle in self.principles),
        )

    def prompt_ids(self, problem: Any, code: str, principle: Principle) -> list[int]:
        """The whole prompt of one question as token ids: what adapter training learns from, and what the cached path must equal."""
        shared, own = self.prompt_parts(problem, code, principle)
        return shared + own

    def prompt_parts(self, problem: Any, code: str, principle: Principle) -> tuple[list[int], list[int]]:
        """The same in two: what all programs for the problem share, and the rest."""
        segments = self.segments(problem, code)
        question = self._question_ids[self.principles.index(principle)]
        return self._head_ids + self._ids(segments.problem, special=False), self._ids(segments.code, special=False) + question

    def _room(self, problem_tokens: int) -> int:
        """Tokens of code that fit into the model's context beside everything else."""
        context = getattr(self.model.config, "max_position_embeddings", None) or 1 << 30
        return min(self.max_code_tokens, context - len(self._head_ids) - problem_tokens - max(map(len, self._question_ids)))

    # Inside -------------------------------------------------------------------------------------------------------------------------

    def _report(self, answer: list[float] | str, shown: Sanitised, prompt_tokens: int) -> JudgeReport:
        if isinstance(answer, str):
            return failed_report(answer, self.name)
        scores = dict(zip((principle.id for principle in self.principles), answer, strict=True))
        if "honesty" in scores and shown.notes:
            scores["honesty"] *= _DISHONEST
        reasons = tuple(f"{principle.id}: {scores[principle.id]:.2f} ({principle.question})" for principle in self.principles) + shown.notes
        belief = self.calibration.apply(scores[BELIEF])
        return JudgeReport(belief, scores, reasons, judge=self.name, prompt_tokens=prompt_tokens, mix=self.constitution.mix(scores))

    def _ids(self, text: str, *, special: bool) -> list[int]:
        """Token ids of one segment. Only our own text may hold special tokens; elsewhere they are split into plain characters."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"]

    def _remembered(self, rows: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Answers, asked for once: policies repeat themselves, and one program must not get two scores from two batch shapes."""
        keys = [(*problem_ids, -1, *code_ids) for problem_ids, code_ids in rows]
        missing = [index for index, key in enumerate(keys) if key not in self._memo]
        for index, answer in zip(missing, self._answers([rows[index] for index in missing]), strict=True):
            self._memo[keys[index]] = answer
        answers = [self._memo[key] for key in keys]
        while len(self._memo) > _REMEMBERED:
            self._memo.popitem(last=False)
        return answers

    @torch.inference_mode()
    def _answers(self, rows: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        """P(yes) per question for each (problem_ids, code_ids)."""
        answers: list[list[float]] = [[] for _ in rows]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (problem_ids, _) in enumerate(rows):
            groups.setdefault(tuple(problem_ids), []).append(index)
        with self.context():
            if not self.share_prefix:
                self._run([], None, [(index, self._head_ids + rows[index][0] + rows[index][1]) for index in range(len(rows))], answers)
                return answers
            head = self._head_kv()
            loose: list[tuple[int, list[int]]] = []
            for problem_ids, members in groups.items():
                if len(members) < _SHARED_FROM:
                    loose += [(index, rows[index][0] + rows[index][1]) for index in members]
                    continue
                prefix = self._extend(self._head_ids, head, list(problem_ids))
                self._run(self._head_ids + list(problem_ids), prefix, [(index, rows[index][1]) for index in members], answers)
            self._run(self._head_ids, head, loose, answers)
        return answers

    def _run(
        self, prefix_ids: list[int], prefix: KeysAndValues | Prefix | None, bodies: list[tuple[int, list[int]]], answers: list[list[float]]
    ) -> None:
        """Fill `answers`; batches are of similar length, so that little of them is padding."""
        bodies = sorted(bodies, key=lambda body: len(body[1]))
        for start in range(0, len(bodies), self.batch_size):
            batch = bodies[start : start + self.batch_size]
            scores_BQ = self._forward(len(prefix_ids), prefix, [ids for _, ids in batch])
            for (index, _), scores_Q in zip(batch, scores_BQ.tolist(), strict=True):
                answers[index] = scores_Q

    def _forward(self, past: int, prefix: KeysAndValues | Prefix | None, bodies: list[list[int]]) -> Tensor:
        """P(yes) [B, Q]. A row is padding, body, question 1, ..., question Q; positions and mask make each question follow the body."""
        if self.reader is not None:
            hidden_BQD = self.reader.read(prefix or self.reader.empty, [Text(body, self._question_ids) for body in bodies])
            return expected_score(self.score_head(hidden_BQD), self.score_token_ids)
        device = self.model.device
        longest = max(map(len, bodies))
        question_length = sum(map(len, self._question_ids))
        rows_B, total = len(bodies), longest + question_length
        ids_BT = torch.zeros(rows_B, total, dtype=torch.long)
        position_BT = torch.zeros(rows_B, total, dtype=torch.long)
        visible_BTS = torch.zeros(rows_B, total, past + total, dtype=torch.bool)
        visible_BTS[:, :, :past] = True
        causal = torch.ones(total, total, dtype=torch.bool).tril()
        ends: list[int] = []
        for row, body in enumerate(bodies):
            first = longest - len(body)
            ids_BT[row, first:longest] = torch.tensor(body)
            position_BT[row, first:longest] = torch.arange(past, past + len(body))
            visible_BTS[row, first:longest, past + first : past + longest] = causal[: len(body), : len(body)]
            at = longest
            for question in self._question_ids:
                end = at + len(question)
                ids_BT[row, at:end] = torch.tensor(question)
                position_BT[row, at:end] = torch.arange(past + len(body), past + len(body) + len(question))
                visible_BTS[row, at:end, past + first : past + longest] = True
                visible_BTS[row, at:end, past + at : past + end] = causal[: len(question), : len(question)]
                if row == 0:
                    ends.append(end - 1)
                at = end
        # A query that sees nothing is NaN in softmax: padding looks at itself.
        visible_BTS[:, torch.arange(total), past + torch.arange(total)] = True
        inputs = {
            "input_ids": ids_BT.to(device),
            "position_ids": position_BT.to(device),
            "attention_mask": _additive(visible_BTS, self._mask_dtype()).to(device),
            "use_cache": prefix is not None,
            "logits_to_keep": torch.tensor(ends, device=device),
        }
        if self._own_head:
            with head_input(self.model) as hidden:
                self.model(**inputs, past_key_values=_cache(prefix, rows_B))
            if len(hidden) == 1 and hidden[0].shape[:2] == (rows_B, len(ends)):
                return expected_score(self.score_head(hidden[0]), self.score_token_ids)
            self._own_head = False  # this model's output layer is given something else
        logits_BQV = self.model(**inputs, past_key_values=_cache(prefix, rows_B)).logits
        return expected_score(logits_BQV[..., [*self.score_token_ids[0], *self.score_token_ids[1]]], self.score_token_ids)

    def score_head(self, hidden: Tensor) -> Tensor:
        """Logits [..., no + yes] of the score tokens from last hidden states [..., D], in float32.

        A bfloat16 logit near 16 moves in steps of an eighth, which is most of the difference between a yes and a no.
        """
        ids = [*self.score_token_ids[0], *self.score_token_ids[1]]
        head = self.model.get_output_embeddings()
        bias = head.bias[ids].float() if getattr(head, "bias", None) is not None else None
        with torch.autocast(self.model.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), head.weight[ids].float(), bias)

    def _head_kv(self) -> KeysAndValues | Prefix:
        if self._head_cache is None:
            self._head_cache = self._extend([], None, self._head_ids)
        return self._head_cache

    def forget(self) -> None:
        """Call after the model's weights change: drops the head's cache and the remembered answers."""
        self._head_cache = None
        self._memo.clear()

    def _extend(self, past_ids: list[int], prefix: KeysAndValues | Prefix | None, ids: list[int]) -> KeysAndValues | Prefix:
        if self.reader is not None:
            return self.reader.extend(prefix or self.reader.empty, ids)
        device, past = self.model.device, len(past_ids)
        visible = torch.ones(len(ids), past + len(ids), dtype=torch.bool).tril(diagonal=past)[None]
        with head_input(self.model):  # nobody reads these logits
            output = self.model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.arange(past, past + len(ids), device=device)[None],
                attention_mask=_additive(visible, self._mask_dtype()).to(device),
                past_key_values=_cache(prefix, 1) or DynamicCache(),
                use_cache=True,
                logits_to_keep=1,
            )
        return [(layer.keys, layer.values) for layer in output.past_key_values.layers]

    def _mask_dtype(self) -> torch.dtype:
        device_type = self.model.device.type
        return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else self.model.dtype


def expected_score(logits_BQS: Tensor, score_token_ids: tuple[tuple[int, ...], tuple[int, ...]]) -> Tensor:
    """P(yes) [B, Q]: the softmax over the score tokens' logits, in float32, with No worth 0 and Yes worth 1.

    logits_BQS: logits of the score tokens in the order no, yes. score_token_ids: (ids that mean no, ids that mean yes); several spellings of
    an answer add up.
    """
    no, yes = score_token_ids
    value_S = torch.tensor([0.0] * len(no) + [1.0] * len(yes), device=logits_BQS.device)
    return torch.softmax(logits_BQS.float(), dim=-1) @ value_S


def score_token_ids(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First tokens of the two answers, with and without a space before them; those that cannot tell the answers apart are left out.

    Raises JudgeUnavailable for a tokenizer whose every Yes starts as a No does.
    """

    def first(words: tuple[str, ...]) -> dict[int, None]:
        encoded = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        return dict.fromkeys(ids[0] for ids in encoded if ids)

    no, yes = first(("No", " No")), first(("Yes", " Yes"))
    shared = no.keys() & yes.keys()
    no_ids, yes_ids = (tuple(token for token in ids if token not in shared) for ids in (no, yes))
    if not no_ids or not yes_ids:
        raise JudgeUnavailable("This tokenizer cannot tell Yes from No by a token", "the local judge reads its score there", "another judge model")
    fewest = min(len(no_ids), len(yes_ids))
    return no_ids[:fewest], yes_ids[:fewest]


def chat_frame(tokenizer: Any, rubric: str) -> tuple[str, str]:
    """(head, tail): the text before the problem and after the question, from the chat template or, without one, plain."""
    if not getattr(tokenizer, "chat_template", None):
        return f"{rubric}\n\n", "\nAnswer:"
    mark = "\x00here\x00"
    try:
        messages = [{"role": "system", "content": rubric}, {"role": "user", "content": mark}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template is a third party's program; some refuse a system turn
        text = tokenizer.apply_chat_template([{"role": "user", "content": f"{rubric}\n\n{mark}"}], tokenize=False, add_generation_prompt=True)
    head, _, tail = text.partition(mark)
    return head, tail


def _additive(visible_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, T, S] with 0 where a query may look and the type's minimum elsewhere."""
    return torch.zeros(visible_BTS.shape, dtype=dtype).masked_fill_(~visible_BTS, torch.finfo(dtype).min)[:, None]


@contextlib.contextmanager
def head_input(model: Any) -> Iterator[list[Tensor]]:
    """Collects what the model's output layer is given during one forward pass, and gives the layer nothing to do."""
    seen: list[Tensor] = []

    def take(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0])
        return (inputs[0][:, :0], *inputs[1:]) if inputs[0].dim() == 3 else inputs

    handle = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield seen
    finally:
        handle.remove()


def _rescales_logits(config: Any) -> bool:
    """Some families scale or cap the output layer's logits; theirs are taken as they come out."""
    return any(getattr(config, key, None) not in (None, 1, 1.0) for key in ("logit_scale", "logits_scaling", "final_logit_softcapping"))


def _cache(prefix: KeysAndValues | None, rows: int) -> DynamicCache | None:
    """A fresh cache that starts with `prefix` for every row (expanded, not copied); None without one."""
    if prefix is None:
        return None
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return cache
