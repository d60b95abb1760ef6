"""How long one call of the TRL reward takes for 64 completions: `python benchmarks/interop/batching.py --out benchmarks/interop/batching.json`

judge: hybrid feedback with the API judge against a server on loopback that takes a drawn time for each answer (most 0.2 to 0.6 s, four of them
2 to 3 s). What is compared: the slowest four answers' times, and the sum of all, which is what one after the other would take.
sandbox: execution feedback on 64 programs, four of which sleep for 2 s before they answer (they hold no processor), the rest quick; 16 at once.
Each is repeated, and every call's wall time is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rlaif.integrations.trl import CodeReward
from rlaif.problems import load_problems
from rlaif.problems.export import export_row

COUNT, SLOW = 64, 4


class Judge(ThreadingHTTPServer):
    """An OpenAI-compatible server. `times` are the seconds that its answers take, in the order in which they are asked for."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.times: list[float] = []
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        schema = body["response_format"]["json_schema"]["schema"]["properties"]
        with server.lock:
            seconds = server.times.pop()
        time.sleep(seconds)
        said = json.dumps(answer_for(schema))
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        text = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


def answer_for(schema: dict[str, Any]) -> dict[str, Any]:
    """Something that fits the judge's schema."""
    out: dict[str, Any] = {}
    for name, kind in schema.items():
        if kind.get("type") == "object":
            out[name] = answer_for(kind["properties"])
        elif kind.get("type") == "string":
            out[name] = "it is fine"
        else:
            out[name] = kind["enum"][-1] if "enum" in kind else min(1, kind.get("maximum", 1))
    return out


def completions(repeat: int, slow: bool) -> tuple[list[str], list[str]]:
    """(sealed problems, replies): right answers, none like another; `slow`: the first SLOW of them sleep."""
    problems = [problem for problem in load_problems("builtin", split="train", limit=40) if problem.reference and problem.signature]
    sealed, replies = [], []
    for place in range(COUNT):
        problem = problems[place % len(problems)]
        code = f"{problem.reference}\n# {repeat} {place}\n"
        if slow and place < SLOW:
            code = f"import time\ntime.sleep(2)\n{code}"
        sealed.append(export_row(problem, "trl")["problem"])
        replies.append(f"```python\n{code}```")
    return sealed, replies


def timed(reward: CodeReward, sealed: list[str], replies: list[str]) -> float:
    started = time.monotonic()
    rewards = reward(["?"] * COUNT, replies, None, problem=sealed)
    seconds = time.monotonic() - started
    bad = [one for one in rewards if one is None or one < 0.3]
    assert not bad, f"these are right answers: {bad}"
    return seconds


def measure_judge(repeats: int, seed: int) -> dict[str, Any]:
    server = Judge()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judge = {"kind": "api", "model": "m", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "concurrency": COUNT}
    reward = CodeReward(feedback="hybrid", judge=judge, sandbox={"workers": 16})
    reward.scorer.engine.meter = None  # timing against references is another matter
    drawn = random.Random(seed)
    rows = []
    for repeat in range(repeats + 1):
        times = [drawn.uniform(0.2, 0.6) for _ in range(COUNT - SLOW)] + [drawn.uniform(2, 3) for _ in range(SLOW)]
        drawn.shuffle(times)
        server.times = list(times)
        sealed, replies = completions(repeat, slow=False)
        alone = timed_without_judge(reward, sealed, replies)
        seconds = timed(reward, sealed, replies)
        slowest = sorted(times)[-SLOW:]
        row = {"seconds": seconds, "of_it_sandbox_and_lint": alone, "slowest_answers": slowest, "sum_of_answers": sum(times)}
        rows.append({name: [round(one, 2) for one in value] if isinstance(value, list) else round(value, 2) for name, value in row.items()})
    reward.close()
    server.shutdown()
    return {"completions": COUNT, "calls": rows[1:]}  # the first one starts connections and threads


def timed_without_judge(reward: CodeReward, sealed: list[str], replies: list[str]) -> float:
    """The same batch without the judge, for the share of the sandbox in it."""
    engine = reward.scorer.engine
    judge, engine.judge = engine.judge, None
    try:
        return timed(reward, sealed, replies)
    finally:
        engine.judge = judge


def measure_sandbox(repeats: int) -> dict[str, Any]:
    reward = CodeReward(feedback="execution", sandbox={"workers": 16})
    reward.scorer.engine.meter = None
    rows = []
    for repeat in range(repeats + 1):
        quick, with_slow = (timed(reward, *completions(repeat, slow=slow)) for slow in (False, True))
        rows.append(
            {"without_the_slow": round(quick, 2), "with_the_slow": round(with_slow, 2), "slowest_program": 2.0, "sum_of_the_slow": 2.0 * SLOW}
        )
    reward.close()
    return {"completions": COUNT, "calls": rows[1:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}
    found = {"machine": machine, "judge": measure_judge(options.repeats, options.seed), "sandbox": measure_sandbox(options.repeats)}
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
