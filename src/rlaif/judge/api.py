"""The API judge: any OpenAI-compatible server, asked for one JSON object per program with the reason before the scores.

Whatever goes wrong is a `JudgeReport.error`: a timeout, a status, a truncated body, an answer that is not exactly what was asked for. Nothing
is guessed from a malformed answer, so no fault can become a score.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import openai
from openai.types.chat import ChatCompletion

from rlaif.config import JudgeConfig
from rlaif.errors import JudgeUnavailable
from rlaif.judge.answers import BadAnswer, answer_schema, parse_answer
from rlaif.judge.budget import Budget, BudgetExhausted, Usage
from rlaif.judge.cache import AnswerCache
from rlaif.judge.constitution import BELIEF, Constitution
from rlaif.judge.prompts import api_messages, delimiter
from rlaif.judge.protocol import JudgeItem, failed_report, refused_report
from rlaif.judge.sanitise import Refusal, Sanitised, sanitise
from rlaif.types import JudgeReport

MAX_COMPLETION_TOKENS = 400
_RETRIES = 3
_FORMAT_VERSION = "1"
"""Part of the cache key: raise it when the prompt or the meaning of an answer changes."""
_MARK = re.compile(r"(</?code )[0-9a-f]+>")


class AskFailed(NamedTuple):
    """A question without an answer, and why."""

    why: str


class ApiJudge:
    """Scores programs through `config.base_url` (or OpenAI's own API), `config.concurrency` requests at once.

    cache_path: SQLite file of answers and usage; None keeps them in memory for this judge's life.
    """

    def __init__(
        self, config: JudgeConfig, constitution: Constitution, *, cache_path: Path | None = None, secret: bytes | None = None, retries: int = _RETRIES
    ) -> None:
        if config.model is None:
            raise ValueError("the API judge needs config.model")
        self.config, self.constitution, self.name = config, constitution, f"api:{config.model}"
        self.secret = secret or secrets.token_bytes(16)
        self.cache = AnswerCache(cache_path)
        ledger = self.cache.usage()
        self.budget = Budget(config, Usage(sum(row["prompt_tokens"] for row in ledger), sum(row["completion_tokens"] for row in ledger), len(ledger)))
        self._attempt = threading.local()
        # The client library's own HTTP client: which library that is changed with its major version.
        self._http = openai.DefaultHttpxClient(event_hooks={"request": [self._before], "response": [self._after]})
        self._client = openai.OpenAI(
            api_key=_api_key(config), base_url=config.base_url, max_retries=retries, timeout=config.timeout_s, http_client=self._http
        )
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="judge")
        self._structured = True

    # Public -------------------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise JudgeUnavailable unless the server answers at all; for `doctor` and the start of a run. Costs no tokens."""
        try:
            self._client.with_options(max_retries=0).models.list()
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise JudgeUnavailable(f"The judge server refuses the key in {self.config.api_key_env}", str(error), "set the right key") from None
        except openai.OpenAIError as error:
            where = self.config.base_url or "api.openai.com"
            raise JudgeUnavailable(f"No judge server at {where}", str(error), "start it, or check --judge.base_url") from None

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeReport]:
        """One report per item, in order. Equal programs for one problem are asked about once; answers in the cache are not asked for again."""
        futures: dict[str, Any] = {}
        shown: list[Sanitised | Refusal] = []
        keys: list[str | None] = []
        for problem, text in items:  # each is sent as soon as it is ready, so that the server waits for none of our work
            shown.append(code := sanitise(problem, text))
            if isinstance(code, Refusal):
                keys.append(None)
                continue
            messages = api_messages(self.constitution, problem, code.code, delimiter(self.secret, problem, code.code))
            key = self._key(messages)
            keys.append(key)
            if key not in futures:
                futures[key] = self._pool.submit(self._one, key, messages)
        reports: list[JudgeReport] = []
        for key, code in zip(keys, shown, strict=True):
            if isinstance(code, Refusal):
                reports.append(refused_report(code, self.name))
            else:
                assert key is not None
                reports.append(self._with_notes(futures[key].result(), code))
        return reports

    def ask(self, questions: Sequence[list[dict[str, str]]], *, max_tokens: int, temperature: float = 0.0) -> list[str | AskFailed]:
        """Free text in answer to chat messages, in order, under the same budget, cache and retries as judgements.

        An answer that cannot be had is an `AskFailed`, never a guess. Equal questions at temperature 0 are asked once.
        """
        return list(self._pool.map(lambda messages: self._text(messages, max_tokens, temperature), questions))

    def close(self) -> None:
        """Wait for requests in flight and close the connections and the cache."""
        self._pool.shutdown(cancel_futures=True)
        self._http.close()
        self.cache.close()

    # One judgement ------------------------------------------------------------------------------------------------------------------

    def _one(self, key: str, messages: list[dict[str, str]]) -> JudgeReport:
        stored = self.cache.get(key)
        if stored is not None:
            try:
                return self._report(json.dumps(stored), cached=True)
            except BadAnswer:
                pass  # a row that another version wrote: ask again
        self._attempt.held = None
        self._attempt.worst = (_most_tokens(messages), MAX_COMPLETION_TOKENS)
        try:
            answer = self._ask(messages)
            report = self._read(answer)
        except BadAnswer as error:
            return failed_report(f"malformed answer: {error}", self.name, prompt_tokens=error.usage[0], completion_tokens=error.usage[1])
        except BudgetExhausted as error:
            return failed_report(f"budget exhausted: {error}", self.name)
        except openai.OpenAIError as error:
            return failed_report(f"{type(error).__name__}: {str(error)[:200]}", self.name)
        except Exception as error:  # a body cut off in the middle surfaces as whatever the JSON or HTTP library raises
            return failed_report(f"{type(error).__name__}: {str(error)[:200]}", self.name)
        finally:
            self._settle("failed", None)
        if report.score is not None:
            self.cache.put(key, json.loads(answer.choices[0].message.content))
        return report

    def _text(self, messages: list[dict[str, str]], max_tokens: int, temperature: float) -> str | AskFailed:
        plain = [messages, self.config.model, self.config.base_url, max_tokens, temperature]
        key = hashlib.sha256(json.dumps([_FORMAT_VERSION, "text", *plain]).encode()).hexdigest()
        stored = self.cache.get(key)
        if stored is not None and isinstance(stored.get("text"), str):
            return stored["text"]
        self._attempt.held = None
        self._attempt.worst = (_most_tokens(messages), max_tokens)
        try:
            answer = self._create({"model": self.config.model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature})
            content = self._content(answer)
        except Exception as error:  # as in `_one`: a server's fault comes as many types
            return AskFailed(f"{type(error).__name__}: {str(error)[:200]}")
        finally:
            self._settle("failed", None)
        if isinstance(content, Refusal):
            return AskFailed(f"{content.kind}: {content.why}")
        if not content.strip():
            return AskFailed("an empty answer")
        self.cache.put(key, {"text": content})
        return content

    def _ask(self, messages: list[dict[str, str]]) -> Any:
        options: dict[str, Any] = {"model": self.config.model, "messages": messages, "max_tokens": MAX_COMPLETION_TOKENS, "temperature": 0.0}
        try:
            if self._structured:
                schema = {"name": "judgement", "strict": True, "schema": answer_schema(self.constitution)}
                return self._create(options | {"response_format": {"type": "json_schema", "json_schema": schema}})
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            # Servers without structured output say so once; from then on the prompt alone asks for JSON, and is held to it as strictly.
            if "response_format" not in str(error):
                raise
            self._structured = False
        return self._create(options)

    def _create(self, options: dict[str, Any]) -> Any:
        self._attempt.refusal = None
        try:
            # As `chat.completions.create`, retries and errors included, but without its walk through every key of every message: at 64 requests
            # in flight the interpreter's time for each is what keeps the rate below the ideal.
            answer = self._client.post("/chat/completions", body=options, cast_to=ChatCompletion)
        except openai.APIConnectionError:
            if self._attempt.refusal is not None:  # our own hook stopped it; the client takes that for a lost connection
                raise self._attempt.refusal from None
            raise
        usage = getattr(answer, "usage", None)
        used = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else None
        self._settle("answered", used)
        return answer

    def _read(self, answer: Any) -> JudgeReport:
        content = self._content(answer)
        return refused_report(content, self.name) if isinstance(content, Refusal) else self._report(content, used=_used(answer))

    def _content(self, answer: Any) -> str | Refusal:
        """The text of a whole answer by the model that was asked; raises BadAnswer for anything less."""
        used = _used(answer)
        choices = getattr(answer, "choices", None)
        if not choices:
            raise BadAnswer("no choices", used)
        if not _same_model(self.config.model or "", getattr(answer, "model", None)):
            raise BadAnswer(f"answered by model {getattr(answer, 'model', None)!r} instead of {self.config.model!r}", used)
        choice = choices[0]
        if choice.finish_reason == "length":
            raise BadAnswer("cut off before its end", used)
        if choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None):
            return Refusal("filtered", "the server's content filter stopped the answer")
        return choice.message.content or ""

    def _report(self, text: str, *, used: tuple[int, int] = (0, 0), cached: bool = False) -> JudgeReport:
        reason, principles = parse_answer(text, self.constitution, used)
        lines = (reason, *(f"{name}: {score:.2f}" for name, score in principles.items()))
        mix = self.constitution.mix(principles)
        return JudgeReport(
            principles[BELIEF], principles, lines, judge=self.name, cached=cached, prompt_tokens=used[0], completion_tokens=used[1], mix=mix
        )

    def _with_notes(self, report: JudgeReport, shown: Sanitised) -> JudgeReport:
        return replace(report, reasons=(*report.reasons, *shown.notes)) if shown.notes and report.score is not None else report

    def _key(self, messages: list[dict[str, str]]) -> str:
        """Equal for equal questions: the run's delimiter is no part of it, so that a resumed run finds its answers."""
        plain = [_MARK.sub(r"\1>", message["content"]) for message in messages]
        text = json.dumps([_FORMAT_VERSION, self.config.model, self.config.base_url, self.constitution.fingerprint(), plain])
        return hashlib.sha256(text.encode()).hexdigest()

    # Money: one reservation for each attempt that really goes out, the client's own retries included -----------------------------------

    def _before(self, request: Any) -> None:
        if not request.url.path.endswith("/chat/completions"):
            return
        self._settle("retried", None)
        try:
            self.budget.reserve(*self._attempt.worst)
        except BudgetExhausted as error:
            self._attempt.refusal = error
            raise
        self._attempt.held = self._attempt.worst
        self._attempt.status = None

    def _after(self, response: Any) -> None:
        self._attempt.status = response.status_code

    def _settle(self, outcome: str, used: tuple[int, int] | None) -> None:
        """Book the attempt in flight, if there is one. A status of 4xx or 5xx used nothing; without a word from the server the worst case counts."""
        held = self._attempt.held
        if held is None:
            return
        self._attempt.held = None
        refused = self._attempt.status is not None and self._attempt.status >= 400
        booked = used if used is not None else (0, 0) if refused else held
        self.budget.settle(held, booked)
        self.cache.record(booked[0], booked[1], outcome, estimated=used is None and not refused)


def _used(answer: Any) -> tuple[int, int]:
    usage = getattr(answer, "usage", None)
    return (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (0, 0)


def _api_key(config: JudgeConfig) -> str:
    key = os.environ.get(config.api_key_env)
    if key:
        return key
    if config.base_url is None:
        raise JudgeUnavailable(
            f"No key for the judge's API: {config.api_key_env} is not set", "", f"export {config.api_key_env}=..., or --judge.base_url"
        )
    return "none"  # servers on one's own machine ask for no key, but the client wants one


def _most_tokens(messages: list[dict[str, str]]) -> int:
    """An upper bound on the prompt's tokens: no tokenizer in use makes more tokens than there are bytes, and templates add a few."""
    return sum(len(message["content"].encode()) for message in messages) + 16 * len(messages)


def _same_model(asked: str, answered: str | None) -> bool:
    """Servers may answer with a dated or a path-qualified name of the model asked for, but not with another model."""
    if not answered:
        return False
    a, b = asked.rstrip("/").split("/")[-1].lower(), answered.rstrip("/").split("/")[-1].lower()
    return a == b or re.fullmatch(re.escape(a) + r"[-@:](\d[\w.-]*|main|latest)", b) is not None
