"""The reward server as its clients meet it: a real process with a real sandbox, and its limits one by one."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlaif.cli.serve import LINE, is_loopback, token_of
from rlaif.config import ServeConfig
from rlaif.errors import UsageError
from rlaif.integrations import Scorer
from rlaif.problems.export import export_row
from rlaif.serve import make_app
from rlaif.types import Feedback, Problem
from tests.integrations.conftest import fenced

ADD = {"prompt": "Add two numbers", "solution": "def add(a, b):\n    return a + b\n", "test_input": "add(2, 3)", "expected_output": "5"}
TOKEN = "a-token-of-some-length"


def start(*words: str, environment: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], str]:
    """A server on a free port; the process and its address."""
    command = [sys.executable, "-m", "rlaif", "serve", "--port", "0", "--feedback", "execution", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
    assert process.stderr is not None
    line = process.stderr.readline()
    return process, "http://" + (line.partition("http://")[2].split() or [""])[0]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    process, address = start("--max-body-bytes", "100000", "--body-timeout-s", "1")
    yield address
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, "SIGTERM is an orderly end"


def ask(app: Any, *requests: dict[str, Any], headers: dict[str, str] | None = None, **more: Any) -> list[httpx.Response]:
    """Answers of an application in this process, asked at the same time."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as client:
            return await asyncio.gather(*(client.post("/reward", json=one, headers=headers, **more) for one in requests))

    return asyncio.run(all_of_them())


class Waiting:
    """A scorer that never answers. `submitted` are the futures it was asked for."""

    needs_tests = True

    def __init__(self) -> None:
        self.submitted: list[Future[Feedback]] = []
        self.config = ServeConfig(feedback="execution")

    async def ascore(self, problem: Problem, code: str) -> Feedback:
        future: Future[Feedback] = Future()
        self.submitted.append(future)
        return await asyncio.wrap_future(future)


def test_a_row_is_answered_as_the_command_answers_it(server: str) -> None:
    right = httpx.post(f"{server}/reward", json=ADD | {"id": "mine"})
    assert right.status_code == 200
    row = right.json()
    assert list(row) == ["id", "reward", "outcome", "verified", "band", "tests", "judge", "quality", "reasons"]
    assert (row["id"], row["outcome"], row["band"], row["tests"]) == ("mine", "scored", "good", {"passed": 1, "total": 1}) and row["reward"] >= 0.6
    wrong = httpx.post(f"{server}/reward", json=ADD | {"solution": "def add(a, b):\n    return '\\ud800'\n"})
    assert wrong.status_code == 200 and wrong.json()["reward"] < 0.3, "half a character in an answer is no failure of the server"
    assert httpx.get(f"{server}/health").json()["status"] == "ok"


def test_openrlhf_is_answered_in_its_own_words(server: str, problems: list[Problem]) -> None:
    rows = [export_row(problem, "openrlhf") for problem in problems[:2]]
    replies = [fenced(problems[0].reference), fenced("def nothing(): pass")]
    query = [f"<s>user: {row['input']}\nassistant: {reply}<|im_end|>" for row, reply in zip(rows, replies, strict=True)]
    prompts = [f"user: {row['input']}\nassistant: " for row in rows]
    answer = httpx.post(f"{server}/get_reward", json={"query": query, "prompts": prompts, "labels": [row["label"] for row in rows]}, timeout=60)
    assert answer.status_code == 200
    found = answer.json()
    assert found["rewards"] == found["scores"] and found["rewards"][0] >= 0.6 and found["rewards"][1] <= 0.1
    assert found["extra_logs"] == {"all_tests_passed": [1.0, 0.0], "policy_failure": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        ("/reward", b"{", 400, "not JSON"),
        ("/reward", b"\xff\xfe", 400, ""),
        ("/reward", b"[" * 50_000, 400, ""),
        ("/reward", b"[]", 422, "body"),
        ("/reward", b'{"prompt": "p"}', 422, "solution"),
        ("/reward", b'{"prompt": "p", "solution": "x"}', 422, "no tests"),
        ("/reward", json.dumps(ADD | {"expected_output": "five"}).encode(), 422, "expected_output"),
        ("/reward", json.dumps(ADD | {"expected_output": NotImplemented.__class__.__name__ + "\ud800"}).encode(), 422, ""),
        ("/reward", json.dumps(ADD | {"test_input": "(" * 5000}).encode(), 422, ""),
        ("/reward", b'{"prompt": "p", "solution": "x", "id": 1e999}', 422, "id"),
        ("/get_reward", b'{"query": ["a"], "prompts": ["b"], "labels": ["c"]}', 422, "does not contain"),
        ("/get_reward", b'{"query": ["a"], "prompts": ["a"], "labels": ["c"]}', 422, "label"),
        ("/get_reward", b'{"query": ["a", "b"], "prompts": ["a"], "labels": ["c"]}', 422, "length"),
        ("/get_reward", b'{"query": "a", "prompts": ["a"], "labels": ["c"]}', 422, "query"),
        ("/reward", b'{"prompt": "' + b"x" * 100_000 + b'"}', 413, "100000 bytes"),
        ("/nowhere", b"{}", 404, ""),
    ],
)  # fmt: skip
def test_malformed_input_is_told_what_is_wrong_with_it(server: str, path: str, content: bytes, status: int, said: str) -> None:
    answer = httpx.post(server + path, content=content, headers={"Content-Type": "application/json"}, timeout=30)
    assert answer.status_code == status and said in answer.json()["detail"], answer.text


def test_a_body_of_no_stated_length_is_limited_too_and_a_slow_one_given_up(server: str) -> None:
    host, port = server.removeprefix("http://").split(":")
    head = b"POST /reward HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"".join(b"2710\r\n" + b"x" * 10_000 + b"\r\n" for _ in range(11)))
        assert sock.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        started = time.monotonic()
        sock.sendall(head + b"Content-Length: 10\r\n\r\nx")
        assert sock.recv(100).startswith(b"HTTP/1.1 408") and time.monotonic() - started < 8


def test_a_row_can_name_no_file_no_model_and_no_address(server: str, tmp_path: Path) -> None:
    """Fields that name things are not looked at; a program that tries is stopped by the sandbox."""
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    named = {"judge": {"kind": "api", "base_url": "http://127.0.0.1:9"}, "constitution": str(secret), "model": str(secret), "source": str(secret)}
    answer = httpx.post(f"{server}/reward", json=ADD | named | {"config": str(secret)})
    assert answer.status_code == 200 and answer.json()["judge"] is None and "the secret" not in answer.text
    marker = tmp_path / "marker"
    code = f"def add(a, b):\n    open({str(marker)!r}, 'w').write('here')\n    return open({str(secret)!r}).read()\n"
    test = f"(open({str(marker)!r}, 'w'), add(2, 3))[1]"
    for row in (ADD | {"solution": code}, ADD | {"reference": code}, ADD | {"preamble": code}, ADD | {"test_input": test}):
        answer = httpx.post(f"{server}/reward", json=row, timeout=60)
        assert "the secret" not in answer.text and not marker.exists(), answer.text


def test_the_token_is_asked_for(scorer: Scorer) -> None:
    app = make_app(scorer, ServeConfig(feedback="execution"), TOKEN)
    basic = base64.b64encode(f"any:{TOKEN}".encode()).decode()
    for sent, status in (
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic ???", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN}", 200),
        (f"Basic {basic}", 200),
    ):
        (answer,) = ask(app, ADD, headers={"Authorization": sent} if sent else None)
        assert answer.status_code == status, sent
    assert "HTTPBearer" in app.openapi()["components"]["securitySchemes"]


def test_without_a_token_only_this_machine_is_served(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = ask(make_app(scorer, ServeConfig(feedback="execution")), ADD, headers={"Host": "rebound.example"})
    assert answer.status_code == 400
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org") and not is_loopback("10.0.0.1")
    monkeypatch.delenv("RLAIF_TOKEN", raising=False)
    assert token_of(ServeConfig()) is None
    with pytest.raises(UsageError, match="needs a token"):
        token_of(ServeConfig(host="0.0.0.0"))
    monkeypatch.setenv("RLAIF_TOKEN", "short")
    with pytest.raises(UsageError, match="at least 16"):
        token_of(ServeConfig())


def test_too_many_at_once_and_too_slow_are_told_to_come_back() -> None:
    waiting = Waiting()
    app = make_app(waiting, ServeConfig(feedback="execution", max_requests=3, request_timeout_s=0.3))  # type: ignore[arg-type]
    answers = ask(app, *[ADD] * 5)
    assert [answer.status_code for answer in answers] == [503] * 5 and all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    assert sorted(answer.json()["detail"] for answer in answers) == ["no reward in time"] * 3 + ["too many requests at once"] * 2
    assert all(future.cancelled() for future in waiting.submitted), "what timed out is not run any more"
    assert [answer.json()["detail"] for answer in ask(app, ADD)] == ["no reward in time"], "there is room again"


def test_a_broken_sandbox_is_a_503_and_never_a_zero(broken: Scorer, problems: list[Problem]) -> None:
    app = make_app(broken, ServeConfig(feedback="execution"))
    (answer,) = ask(app, ADD)
    assert answer.status_code == 503 and "the sandbox broke" in answer.json()["detail"] and "Retry-After" in answer.headers


def test_what_a_client_no_longer_waits_for_leaves_the_queue() -> None:
    waiting = Waiting()
    app = make_app(waiting, ServeConfig(feedback="execution"))  # type: ignore[arg-type]

    async def leave() -> None:
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/reward", "raw_path": b"/reward"}
        scope |= {"query_string": b"", "scheme": "http", "server": ("localhost", 80), "root_path": ""}
        scope |= {"headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}
        messages = [{"type": "http.request", "body": json.dumps(ADD).encode()}, {"type": "http.disconnect"}]

        async def receive() -> dict[str, Any]:
            while len(messages) == 1 and not waiting.submitted:
                await asyncio.sleep(0.01)
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            raise AssertionError("nobody is there")

        await app(scope, receive, send)

    asyncio.run(asyncio.wait_for(leave(), 10))
    assert [future.cancelled() for future in waiting.submitted] == [True]


@pytest.mark.timeout(60)
def test_ctrl_c_answers_what_is_under_way_and_ends_with_130() -> None:
    process, address = start()
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps(ADD | {"solution": "def add(a, b):\n    import time\n    time.sleep(1)\n    return a + b\n"}).encode()
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        head = f"POST /reward HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        while httpx.get(f"{address}/health", timeout=30).json()["under_way"] == 0:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert process.wait(30) == 130


def test_the_example_of_the_help_serves() -> None:
    """Word for word, but for the port, which another program may have."""
    words = shlex.split(LINE.example)[2:]
    port = words[words.index("--port") + 1]
    assert LINE.parse(words).settings.port == int(port)
    process, address = start(*(word if word != port else "0" for word in words))
    try:
        assert httpx.post(f"{address}/reward", json=ADD, timeout=30).json()["outcome"] == "scored"
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_the_commands_own_errors() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process, _ = start("--port", str(taken.getsockname()[1]))
        assert process.wait(30) == 3
    process, _ = start("--host", "0.0.0.0", environment={"RLAIF_TOKEN": ""})
    assert process.wait(30) == 2
