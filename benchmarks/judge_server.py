"""The API judge against servers that are not ours, and how near 64 requests in flight come to the ideal.

    python benchmarks/judge_server.py real --model MODEL_FOLDER --items 8 --out real.json
    python benchmarks/judge_server.py throughput --requests 512 --delay 1.0 --out throughput.json

real        starts `transformers serve` (needs `pip install fastapi uvicorn`), waits for it, and judges programs through it. Small models often
            write no valid JSON; what is checked is that every report is a score from a whole answer or an error with its reason, that a second
            run is answered from the cache, and that a server killed in between gives errors and no scores.
throughput  a server in a process of its own sleeps `--delay` seconds for each request; ideal is concurrency / delay. Says where the rest goes:
            the judge's own CPU time per request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rlaif.config import JudgeConfig
from rlaif.errors import JudgeUnavailable
from rlaif.judge import JudgeItem
from rlaif.judge.api import ApiJudge
from rlaif.judge.constitution import load_constitution
from rlaif.problems import load_problems
from rlaif.types import Problem, TestCase

SCORES = {"reason": "adds", "scores": {"correctness": 9, "clarity": 8, "efficiency": 7, "robustness": 6, "honesty": 10}}


def real(options: argparse.Namespace) -> dict[str, Any]:
    """Judge references and empty-handed answers through `transformers serve`."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            judge = judge_at(port, options.model, Path(folder) / "judge.sqlite", options.timeout_s, concurrency=1)
            wait_for(judge, server, Path(folder) / "server.log")
            problems = [problem for problem in load_problems("builtin", split="train") if problem.reference][: options.items]
            items = [JudgeItem(problem, problem.reference or "") for problem in problems]
            start = time.perf_counter()
            reports = judge.score(items)
            seconds = time.perf_counter() - start
            again = judge.score([item for item, report in zip(items, reports, strict=True) if report.score is not None])
            server.kill()
            server.wait()
            gone = ApiJudge(judge.config.model_copy(update={"cache": None}), load_constitution(), retries=0).score(items[:2])
        finally:
            server.kill()
    assert all((report.score is None) == (report.error is not None) for report in reports), "a report is a score or an error"
    assert all(report.cached for report in again), "paid answers are not asked for again"
    assert all(report.score is None and report.error for report in gone), "a dead server gives no scores"
    kinds = Counter((report.error or "scored").split(":")[0] for report in reports)
    used = {"prompt_tokens": sum(r.prompt_tokens for r in reports), "completion_tokens": sum(r.completion_tokens for r in reports)}
    found = {"server": "transformers serve", "model": Path(options.model).name, "items": len(items), "outcomes": dict(kinds), **used}
    return found | {"seconds": round(seconds, 1), "from_cache_on_repeat": len(again), "errors_of_a_dead_server": [report.error for report in gone]}


def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Many judgements at once against a server that only sleeps."""
    port = free_port()
    server = subprocess.Popen([sys.executable, __file__, "sleep", "--port", str(port), "--delay", str(options.delay)])
    try:
        judge = judge_at(port, "sleeper", None, 60.0, options.concurrency)
        wait_for(judge, server, None)
        shown = TestCase("shown", "f(1)", "2")
        items = [
            JudgeItem(Problem(str(i), f"Add {i}.", (shown,), "f", "def f(x):"), f"def f(x):\n    return x + {i}\n") for i in range(options.requests)
        ]
        judge.score([JudgeItem(Problem("warm", "Add.", (), "f", "def f(x):"), "def f(x):\n    return x + x\n")])  # the client loads on first use
        start, cpu = time.perf_counter(), time.process_time()
        reports = judge.score(items)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    finally:
        server.kill()
    assert all(report.score == 0.9 for report in reports), next(report for report in reports if report.score != 0.9)
    ideal = options.requests / options.concurrency * options.delay
    found = {"requests": options.requests, "in_flight": options.concurrency, "delay_s": options.delay, "seconds": round(seconds, 2)}
    return found | {"share_of_ideal": round(ideal / seconds, 3), "judge_cpu_ms_per_request": round(1000 * cpu / options.requests, 2)}


def judge_at(port: int, model: str, cache: Path | None, timeout_s: float, concurrency: int) -> ApiJudge:
    config = JudgeConfig(kind="api", model=model, base_url=f"http://127.0.0.1:{port}/v1", timeout_s=timeout_s, concurrency=concurrency)
    return ApiJudge(config, load_constitution(), cache_path=cache, retries=0)


def wait_for(judge: ApiJudge, server: subprocess.Popen, log: Path | None, patience_s: float = 180.0) -> None:
    end = time.monotonic() + patience_s
    while True:
        try:
            return judge.check()
        except JudgeUnavailable:
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"The server did not start: {log.read_text()[-2000:] if log else server.returncode}") from None
            time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sleep(options: argparse.Namespace) -> None:
    """The sleeping server: HTTP/1.1 with keep-alive, as little of it as the client needs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
                body = json.loads(await reader.readexactly(length)) if length else {}
                answer: dict[str, Any] = {"object": "list", "data": []}
                if body:
                    await asyncio.sleep(options.delay)
                    message = {"role": "assistant", "content": json.dumps(SCORES)}
                    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
                    answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
                    answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
                data = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", options.port, backlog=256)
        await server.serve_forever()

    asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("real", "throughput", "sleep"))
    parser.add_argument("--model", help="a folder that `transformers serve` can load")
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--timeout-s", type=float, default=300.0)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=1.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "sleep":
        return sleep(options)
    if options.what == "real" and options.model is None:
        parser.error("real needs --model")
    found = real(options) if options.what == "real" else throughput(options)
    print(json.dumps(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
