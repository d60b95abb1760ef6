"""The API judge against a server that fails in every way we know: no fault becomes a score, no cap is passed, no paid answer is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import GOOD, FaultServer

from rlaif.config import JudgeConfig
from rlaif.errors import JudgeUnavailable, UsageError
from rlaif.judge import Judge, JudgeItem, load_constitution
from rlaif.judge.api import ApiJudge, AskFailed
from rlaif.types import Problem, TestCase

ADD = Problem("add", "Add two numbers a and b.", (TestCase("graded", "add(1, 2)", "3"),), entry_point="add", signature="def add(a, b):")


def item(number: int) -> JudgeItem:
    return JudgeItem(ADD, f"def add(a, b):\n    return a + b + {number}")


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    servers: list[FaultServer] = []

    def start(script: Callable[[int, dict[str, Any]], dict[str, Any]]) -> FaultServer:
        servers.append(FaultServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def judge(server: FaultServer, *, retries: int = 0, cache: Path | None = None, **settings: Any) -> ApiJudge:
    config = JudgeConfig(kind="api", model="critic-1", base_url=server.url, **{"timeout_s": 5.0, **settings})
    return ApiJudge(config, load_constitution(), cache_path=cache, retries=retries, secret=b"k")


def test_a_good_answer_is_a_score_with_principles_and_reason(serve: Callable) -> None:
    server = serve(lambda number, body: {})
    api = judge(server)
    report = api.score([item(1)])[0]
    assert isinstance(api, Judge)
    assert report.score == 0.9 and report.principles["robustness"] == 0.6 and report.reasons[0] == "adds" and not report.refused
    assert (report.prompt_tokens, report.completion_tokens) == (100, 20)
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reason", "scores"]  # the reason is written before the scores


def without(key: str) -> str:
    return json.dumps({**GOOD, "scores": {k: v for k, v in GOOD["scores"].items() if k != key}})


def scored(value: object) -> str:
    return json.dumps({**GOOD, "scores": {**GOOD["scores"], "correctness": value}})


FAULTS: dict[str, dict[str, Any]] = {
    "server error": {"status": 500},
    "bad gateway": {"status": 502},
    "rate limit": {"status": 429, "headers": {"Retry-After": "0"}},
    "bad key": {"status": 401},
    "no such model": {"status": 404},
    "timeout": {"delay": 3.0},
    "cut off body": {"cut": 60},
    "no body": {"raw": b""},
    "html": {"raw": b"<html>busy</html>"},
    "json of another kind": {"raw": b'{"error": "overloaded"}'},
    "json list": {"raw": b"[]"},
    "no choices": {"raw": b'{"id": "1", "object": "chat.completion", "created": 0, "model": "critic-1", "choices": []}'},
    "wrong model": {"model": "tiny-random"},
    "wrong model with a shared prefix": {"model": "critic-1-mini"},
    "cut off answer": {"finish": "length"},
    "empty content": {"content": ""},
    "no content": {"content": None},
    "prose": {"content": "The code is correct. Score: 10/10"},
    "truncated json": {"content": json.dumps(GOOD)[:-4]},
    "two objects": {"content": json.dumps(GOOD) + json.dumps(GOOD)},
    "object in prose": {"content": f"Here you go: {json.dumps(GOOD)}"},
    "missing principle": {"content": without("clarity")},
    "missing reason": {"content": json.dumps({"scores": GOOD["scores"]})},
    "extra key": {"content": json.dumps({**GOOD, "final": 10})},
    "above the scale": {"content": scored(11)},
    "below the scale": {"content": scored(-1)},
    "text score": {"content": scored("10")},
    "boolean score": {"content": scored(True)},
    "null score": {"content": scored(None)},
    "nan score": {"content": json.dumps(GOOD).replace("9", "NaN")},
    "infinite score": {"content": json.dumps(GOOD).replace("9", "1e999")},
    "key twice": {"content": json.dumps(GOOD).replace('"clarity": 8', '"correctness": 10, "clarity": 8')},
    "deep nesting": {"content": "[" * 100_000},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name.replace(" ", "-"))
def test_no_fault_becomes_a_score(serve: Callable, fault: str) -> None:
    server = serve(lambda number, body: FAULTS[fault])
    api = judge(server, timeout_s=0.5 if fault == "timeout" else 5.0)
    report = api.score([item(1)])[0]
    assert report.score is None and report.error and not report.refused and not report.principles
    assert api.cache.get("") is None and not list(api.cache._db.execute("SELECT * FROM answers"))  # and none is remembered


def test_a_content_filter_was_provoked_by_the_code(serve: Callable) -> None:
    report = judge(serve(lambda number, body: {"finish": "content_filter"})).score([item(1)])[0]
    assert report.score is None and report.refused


def test_one_bad_item_leaves_the_others(serve: Callable) -> None:
    server = serve(lambda number, body: {"status": 500} if "+ 3" in body["messages"][1]["content"] else {})
    reports = judge(server).score([item(1), JudgeItem(ADD, "def add(a, b): pass"), item(3), item(4), item(1)])
    assert [report.score for report in reports] == [0.9, None, None, 0.9, 0.9]
    assert reports[1].refused and not reports[2].refused
    assert len(server.requests) == 3  # the refused one was not asked about, and equal programs once


def test_retries_respect_retry_after(serve: Callable) -> None:
    server = serve(lambda number, body: {"status": 429, "headers": {"Retry-After": "1"}} if number == 0 else {})
    start = time.monotonic()
    report = judge(server, retries=2).score([item(1)])[0]
    assert report.score == 0.9 and time.monotonic() - start >= 1.0 and len(server.requests) == 2


def test_a_server_without_structured_output_is_asked_plainly_once(serve: Callable) -> None:
    no = {"status": 400, "error": {"error": {"message": "response_format is not supported"}}}
    server = serve(lambda number, body: no if "response_format" in body else {})
    reports = judge(server, concurrency=1).score([item(1), item(2), item(3)])
    assert [report.score for report in reports] == [0.9] * 3
    assert len(server.requests) == 4


def test_the_token_cap_holds_with_many_in_flight(serve: Callable) -> None:
    server = serve(lambda number, body: {"delay": 0.02})
    api = judge(server, max_tokens_total=9_000, concurrency=8)
    reports = api.score([item(number) for number in range(60)])
    assert api.budget.spent.tokens <= 9_000
    assert 0 < len(server.requests) < 60
    errors = {report.error for report in reports if report.score is None}
    assert errors and all("budget exhausted" in (error or "") for error in errors)


def test_the_spend_cap_counts_failures_and_retries(serve: Callable) -> None:
    server = serve(lambda number, body: {"cut": 40})  # no usage ever comes back: the worst case is booked
    api = judge(server, retries=1, concurrency=1, max_spend_usd=0.012, usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=2.0)
    reports = api.score([item(number) for number in range(5)])
    assert all(report.score is None for report in reports) and "budget exhausted" in (reports[-1].error or "")
    assert 0.006 < api.budget.spent_usd <= 0.012
    rows = api.cache.usage()
    assert len(rows) == len(server.requests) and all(row["estimated"] and row["outcome"] != "answered" for row in rows)


def test_refused_requests_cost_nothing_and_are_recorded(serve: Callable) -> None:
    api = judge(serve(lambda number, body: {"status": 500}), max_tokens_total=10_000)
    api.score([item(1)])
    assert api.budget.spent.tokens == 0 and [row["outcome"] for row in api.cache.usage()] == ["failed"]


def test_a_spend_cap_needs_prices(serve: Callable) -> None:
    with pytest.raises(UsageError, match="prices"):
        judge(serve(lambda number, body: {}), max_spend_usd=1.0)


def test_answers_and_usage_survive_a_kill(serve: Callable, tmp_path: Path) -> None:
    server = serve(lambda number, body: {"delay": 30.0} if number >= 5 else {})
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pathlib import Path
        from test_api import ADD, item
        from rlaif.config import JudgeConfig
        from rlaif.judge import load_constitution
        from rlaif.judge.api import ApiJudge
        config = JudgeConfig(kind="api", model="critic-1", base_url={server.url!r}, concurrency=1, timeout_s=60)
        judge = ApiJudge(config, load_constitution(), cache_path=Path({str(tmp_path / "judge.sqlite")!r}), secret=b"another run")
        judge.score([item(number) for number in range(8)])
    """)
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while len(server.requests) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = serve(lambda number, body: {})
    config_url = judge(again, cache=tmp_path / "judge.sqlite")
    config_url.config = config_url.config.model_copy(update={"base_url": server.url})  # the same server, on a new port in this test only
    before = config_url.budget.spent
    reports = config_url.score([item(number) for number in range(8)])
    assert [report.cached for report in reports] == [True] * 5 + [False] * 3
    assert all(report.score == 0.9 for report in reports) and len(again.requests) == 3
    assert before.tokens == 5 * 120  # a cap for the whole run goes on from what was spent


def test_a_damaged_cache_row_is_asked_again(serve: Callable, tmp_path: Path) -> None:
    server = serve(lambda number, body: {})
    api = judge(server, cache=tmp_path / "c.sqlite")
    api.score([item(1)])
    api.cache._db.execute('UPDATE answers SET answer = \'{"reason": "x"\'')
    assert api.score([item(1)])[0].score == 0.9 and len(server.requests) == 2
    assert api.score([item(1)])[0].cached


def test_changing_a_principle_changes_the_question_and_the_cache_key(serve: Callable, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "src/rlaif/judge/constitutions/default.toml").read_text(encoding="utf-8")
    edited = tmp_path / "mine.toml"
    edited.write_text(text.replace("Is this code efficient?", "Does it use recursion?"), encoding="utf-8")
    server = serve(lambda number, body: {})
    config = JudgeConfig(kind="api", model="critic-1", base_url=server.url)
    for constitution in (load_constitution(), load_constitution(edited)):
        ApiJudge(config, constitution, cache_path=tmp_path / "c.sqlite", retries=0).score([item(1)])
    assert len(server.requests) == 2 and "Does it use recursion?" in server.requests[1]["messages"][0]["content"]


def test_throughput_with_64_in_flight(serve: Callable) -> None:
    """The bar is 90% of the ideal on a quiet machine with the server elsewhere (benchmarks/judge_server.py measures that); here the server shares
    our interpreter and the machine may be busy, so the test asks for less."""
    server = serve(lambda number, body: {"delay": 2.0})
    api = judge(server, concurrency=64, timeout_s=30.0)
    start = time.monotonic()
    reports = api.score([item(number) for number in range(128)])
    seconds = time.monotonic() - start
    assert all(report.score == 0.9 for report in reports)
    assert server.most_in_flight >= 48
    assert seconds < 12  # one after the other they take 256


# Free text, for pairs and revisions ---------------------------------------------------------------------------------------------------


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


OF_ANY_ANSWER = list(FAULTS)[: list(FAULTS).index("no content") + 1]
"""The faults that are not about what a judgement says."""


@pytest.mark.parametrize("fault", OF_ANY_ANSWER, ids=lambda name: name.replace(" ", "-"))
def test_no_fault_becomes_a_text(serve: Callable, fault: str) -> None:
    server = serve(lambda number, body: FAULTS[fault] if "bad" in body["messages"][0]["content"] else {"content": "fine"})
    api = judge(server, timeout_s=0.5 if fault == "timeout" else 5.0)
    failed, text = api.ask([question("bad"), question("good")], max_tokens=30)
    assert isinstance(failed, AskFailed) and failed.why and text == "fine"
    assert len(list(api.cache._db.execute("SELECT * FROM answers"))) == 1


def test_a_filtered_text_is_none(serve: Callable) -> None:
    answer = judge(serve(lambda number, body: {"finish": "content_filter"})).ask([question("?")], max_tokens=30)[0]
    assert isinstance(answer, AskFailed) and "filter" in answer.why


def test_texts_come_in_order_and_are_paid_once(serve: Callable, tmp_path: Path) -> None:
    server = serve(lambda number, body: {"content": body["messages"][0]["content"].upper(), "delay": 0.3 if number == 0 else 0.0})
    questions = [question(text) for text in ("a", "b", "c", "d")]
    api = judge(server, cache=tmp_path / "c.sqlite", concurrency=4)
    assert api.ask(questions, max_tokens=30) == ["A", "B", "C", "D"]
    api.close()
    again = judge(server, cache=tmp_path / "c.sqlite", concurrency=4)
    assert again.ask([*questions, question("e")], max_tokens=30) == ["A", "B", "C", "D", "E"] and len(server.requests) == 5
    again.ask(questions[:1], max_tokens=31)
    assert len(server.requests) == 6, "another limit is another question"


def test_the_token_cap_holds_for_texts_too(serve: Callable) -> None:
    server = serve(lambda number, body: {"content": "fine"})
    api = judge(server, concurrency=8, max_tokens_total=1000)
    answers = api.ask([question(f"number {number} " + "and more " * 20) for number in range(40)], max_tokens=30)
    failed = [answer for answer in answers if isinstance(answer, AskFailed)]
    assert failed and all("udget" in answer.why for answer in failed)
    assert len(server.requests) == 40 - len(failed) and api.budget.spent.tokens <= 1000


def test_no_server_and_no_key_are_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config = JudgeConfig(kind="api", model="m", base_url="http://127.0.0.1:9/v1", timeout_s=2.0)
    with pytest.raises(JudgeUnavailable, match="No judge server"):
        ApiJudge(config, load_constitution(), retries=0).check()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeUnavailable, match="OPENAI_API_KEY"):
        ApiJudge(JudgeConfig(kind="api", model="m"), load_constitution())
