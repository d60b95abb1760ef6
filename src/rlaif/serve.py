"""The reward over HTTP: OpenRLHF's remote reward at /get_reward, one row as `rlaif reward` takes it at /reward, and /health.

A request names a task, its tests and a program, and nothing else: no file, no model, no address. All of it is run in the sandbox, or read by the
judge that the server was started with. Refusals come early: the token and the size before the body is read, the room for it before it is scored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlaif import __version__
from rlaif.config import ServeConfig
from rlaif.errors import EnvironmentFailure, UsageError
from rlaif.integrations import openrlhf
from rlaif.integrations.scorer import RewardUnavailable, Scorer, own_id, reward_or_raise
from rlaif.rewards.rows import entry_of, row
from rlaif.types import Feedback, Problem

MAX_SAMPLES = 256
"""Samples in one request to /get_reward; OpenRLHF sends one."""
RETRY = {"Retry-After": "2"}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN_PATHS = frozenset({"/health"})
"""Answered without a token: nothing is scored there."""


class AsciiResponse(JSONResponse):
    """JSON in ASCII: a program may print half a character, and then there is no UTF-8 for it."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


EXAMPLE = {"prompt": "Add two numbers", "solution": "def add(a, b):\n    return a + b\n", "test_input": "add(2, 3)", "expected_output": "5"}

REMOTE_EXAMPLE = {
    "query": [f"Add two numbers\n```python\n{EXAMPLE['solution']}```"],
    "prompts": ["Add two numbers\n"],
    "labels": [json.dumps({name: text for name, text in EXAMPLE.items() if name != "solution"})],
}
CHECK = "def check(candidate):\n    assert candidate(2, 3) == 5\n"


class RowIn(BaseModel):
    """As a line of `rlaif reward FILE.jsonl`; unknown fields are metadata and are not looked at."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": EXAMPLE})
    prompt: str = Field(description="The task in words.")
    solution: str = Field(description="The program to be scored.")
    id: str | int | None = Field(None, description="Handed through.")
    test_input: Any = Field(None, description="A call, as Python in a string.", examples=["add(2, 3)"])
    expected_output: Any = Field(None, description="Its value, as a Python literal in a string.", examples=["5"])
    tests: Any = Field(None, description="Several of them, in place of the two above.", examples=[[{"input": "add(2, 3)", "expected": "5"}]])
    test_code: Any = Field(None, description="HumanEval's form: it defines check(candidate).", examples=[CHECK])
    entry_point: Any = Field(None, description="The function asked for; test_code needs it.", examples=["add"])
    reference: Any = Field(None, description="A right program, against which efficiency is measured.", examples=[EXAMPLE["solution"]])


class TestCount(BaseModel):
    passed: int
    total: int


class RowOut(BaseModel):
    """As a line of `rlaif reward --json`. A sample that could not be scored for the server's own reasons is a 503, not a row."""

    id: str | int | None = None
    reward: float = Field(ge=0, le=1)
    outcome: Literal["scored", "policy_failure"]
    verified: bool
    band: Literal["poor", "okay", "good"]
    tests: TestCount
    judge: dict[str, Any] | None
    quality: dict[str, Any] | None
    reasons: list[str]


class RemoteIn(BaseModel):
    """What OpenRLHF's client posts. Labels are the rows' `label` from `rlaif problems export --format openrlhf`."""

    model_config = ConfigDict(json_schema_extra={"example": REMOTE_EXAMPLE})
    query: list[str] = Field(min_length=1, max_length=MAX_SAMPLES, description="Prompt and response, one string a sample.")
    prompts: list[str] = Field(min_length=1, max_length=MAX_SAMPLES)
    labels: list[str] = Field(min_length=1, max_length=MAX_SAMPLES)


class RemoteOut(BaseModel):
    """What OpenRLHF's client takes."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class Refusal(BaseModel):
    """Why there is no reward."""

    detail: str


class Health(BaseModel):
    status: Literal["ok"]
    version: str
    feedback: Literal["hybrid", "ai", "execution"]
    under_way: int = Field(description="Samples that are being scored, or wait for it.")


_RETRY_HEADER = {"Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is not JSON."},
    401: {"model": Refusal, "description": "The token is missing or wrong.", "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}}},
    408: {"model": Refusal, "description": "The body did not come in time."},
    413: {"model": Refusal, "description": "The body is too large."},
    422: {"model": Refusal, "description": "The body is JSON, but nothing that can be scored; it says what is wrong with it."},
    503: {
        "model": Refusal,
        "description": "No reward now: too many requests, too slow, or the sandbox or the judge broke.",
        "headers": _RETRY_HEADER,
    },
}


def make_app(scorer: Scorer, config: ServeConfig, token: str | None = None) -> FastAPI:
    """The server as an ASGI application. The caller closes the scorer.

    token: what `Authorization: Bearer` must carry, or the password of `Basic` (for clients that only take a URL: http://any:TOKEN@host/);
    None: anybody on this machine may ask.
    """

    app = FastAPI(
        title="rlaif reward server",
        version=__version__,
        description=__doc__,
        default_response_class=AsciiResponse,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [],  # for the description: Gate checks it
    )

    @app.post("/get_reward", response_model=None, responses={200: {"model": RemoteOut}} | ERRORS, summary="OpenRLHF's remote reward")
    async def get_reward(body: RemoteIn) -> Response:
        found = await scored(openrlhf.samples(body.query, body.prompts, body.labels))
        return AsciiResponse(openrlhf.answer(found))

    @app.post("/reward", response_model=None, responses={200: {"model": RowOut}} | ERRORS, summary="Score one program")
    async def reward(body: RowIn) -> Response:
        entry = entry_of(body.model_dump(exclude_unset=True), path="the request", line=None, needs_tests=scorer.needs_tests)
        if entry.problem is None:
            raise UsageError("This row cannot be scored", entry.why)
        (feedback,) = await scored([(own_id(entry.problem), entry.code)])
        reward_or_raise(feedback)
        return AsciiResponse(row(entry, feedback))

    @app.get("/health", response_model=None, responses={200: {"model": Health}}, summary="Is it up?")
    async def health() -> Response:
        return AsciiResponse({"status": "ok", "version": __version__, "feedback": scorer.config.feedback, "under_way": under_way})

    under_way = 0

    async def scored(pairs: Sequence[tuple[Problem, str]]) -> list[Feedback]:
        """Raises TimeoutError after the time limit; what no lane has taken by then is never run."""
        nonlocal under_way
        under_way += len(pairs)
        try:
            async with asyncio.timeout(config.request_timeout_s):
                return list(await asyncio.gather(*(scorer.ascore(problem, code) for problem, code in pairs)))
        finally:
            under_way -= len(pairs)

    _explain(app)
    app.add_middleware(Gate, config=config, token=token)
    return app


def _explain(app: FastAPI) -> None:
    """Every refusal as `{"detail": "..."}` in words, without an echo of the body."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return failed(400, f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return failed(422, f"{where or 'the body'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return failed(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(UsageError)
    async def usage(_: Request, error: UsageError) -> Response:
        return failed(422, ": ".join(part for part in (error.what, error.why) if part))

    @app.exception_handler(EnvironmentFailure)
    async def environment(_: Request, error: EnvironmentFailure) -> Response:
        why = error.why if isinstance(error, RewardUnavailable) else error.what
        return failed(503, f"no reward now: {why or error.what}", RETRY)

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> Response:
        return failed(503, "no reward in time", RETRY)


def failed(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal with its reason."""
    return AsciiResponse({"detail": detail}, status_code=status, headers=headers)


class Gate:
    """What stands before the application: whose request it is, how large, how many at once, and how slow, in that order."""

    def __init__(self, app: ASGIApp, config: ServeConfig, token: str | None) -> None:
        self.app, self.config = app, config
        self._digest = hashlib.sha256(token.encode()).digest() if token else None
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refused(scope)
        if refusal is None and self._inside >= self.config.max_requests:
            refusal = failed(503, "too many requests at once", RETRY)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._let_in(scope, receive, send)
        finally:
            self._inside -= 1

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._digest is None and _host(headers.get("host", "")) not in LOOPBACK:
            # a web page whose name was made to point to this machine would otherwise count as a program on it
            return failed(400, "this server has no token, so it answers to localhost only")
        if self._digest is not None and scope["path"] not in OPEN_PATHS and not self._knows(headers.get("authorization", "")):
            return failed(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.config.max_body_bytes:
            return failed(413, self._too_large(), {"Connection": "close"})
        return None

    def _knows(self, authorization: str) -> bool:
        kind, _, said = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                said = base64.b64decode(said, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                said = ""
        assert self._digest is not None
        return hmac.compare_digest(hashlib.sha256(said.strip().encode()).digest(), self._digest)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body within its limits, then let the application answer for as long as somebody waits for the answer."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.config.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > self.config.max_body_bytes:
                        await failed(413, self._too_large(), {"Connection": "close"})(scope, receive, send)
                        return
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            await failed(408, f"the body did not come within {self.config.body_timeout_s:g} s", {"Connection": "close"})(scope, receive, send)
            return
        told = False

        async def replay() -> Message:
            nonlocal told
            if told:
                await asyncio.Event().wait()
            told = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        answering = asyncio.ensure_future(self.app(scope, replay, send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            answering.cancel()  # what nobody waits for is taken out of the queue
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    def _too_large(self) -> str:
        return f"the body is larger than {self.config.max_body_bytes} bytes"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _host(header: str) -> str:
    """The name in a Host header, without its port and brackets."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.rpartition(":")[0] or header
