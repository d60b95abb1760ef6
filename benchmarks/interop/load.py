"""The reward server under load on loopback: `python benchmarks/interop/load.py --seconds 600 --out benchmarks/interop/load.json`

Starts `rlaif serve --feedback execution` and keeps --in-flight requests under way (plain asyncio, keep-alive, OpenRLHF's protocol at
/get_reward): right, wrong and missing answers to the built-in training problems, each answer a text of its own, 1 in 50 malformed, 1 in 500 an
endless loop. Every answer is checked: a right program must get at least 0.3, a wrong one less, malformed input 422. Every 5 seconds: memory,
descriptors, threads and processes of the server with its sandbox. A request that could not be answered as it should is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from rlaif.problems import load_problems
from rlaif.problems.export import export_row

SAMPLE_EVERY_S = 5.0


class Traffic:
    """Requests without end, each with the check that its answer must pass."""

    def __init__(self, seed: int, problems: int | None) -> None:
        self.random = random.Random(seed)
        self.count = itertools.count()
        self.problems = [problem for problem in load_problems("builtin", split="train") if problem.reference][:problems]
        self.rows = [export_row(problem, "openrlhf") for problem in self.problems]

    def next(self) -> tuple[str, bytes]:
        """(kind, body)"""
        number, place = next(self.count), self.random.randrange(len(self.rows))
        problem, row = self.problems[place], self.rows[place]
        if number % 50 == 49:
            return "malformed", json.dumps({"query": [row["input"]], "prompts": [row["input"]], "labels": ["{}"]}).encode()
        kind = "endless" if number % 500 == 250 else self.random.choice(("right", "right", "wrong", "missing"))
        code = {
            "right": problem.reference,
            "wrong": f"def {problem.entry_point}(*args, **kwargs):\n    return 'no {number}'",
            "missing": f"def other_{number}():\n    return 1",
            "endless": f"def {problem.entry_point}(*args, **kwargs):\n    while True: pass",
        }[kind]
        reply = f"{row['input']}\n```python\n{code}\n# {number}\n```<|im_end|>"
        return kind, json.dumps({"query": [reply], "prompts": [row["input"]], "labels": [row["label"]]}).encode()


def as_expected(kind: str, status: int, answer: Any) -> bool:
    """Whether this is the right answer to a request of this kind."""
    if kind == "malformed":
        return status == 422
    if status != 200:
        return False
    reward = answer["rewards"][0]
    return reward >= 0.3 if kind == "right" else 0.0 <= reward < 0.3


async def client(port: int, traffic: Traffic, until: float, done: list[tuple[float, str, int, bool]]) -> None:
    """One request after the other on one connection, until the clock says so."""
    reader = writer = None
    while time.monotonic() < until:
        kind, body = traffic.next()
        started = time.monotonic()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /get_reward HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            status = int(lines[0].split()[1])
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
            text = await reader.readexactly(int(headers["content-length"]))
            answer = json.loads(text) if headers.get("content-type") == "application/json" else None
            fine = as_expected(kind, status, answer)
            done.append((time.monotonic() - started, kind, status, fine))
            if not fine:
                print(f"{kind}: {status} {text[:300]!r}", file=sys.stderr)
            if headers.get("connection", "").lower() == "close":
                writer.close()
                writer = None
        except (OSError, asyncio.IncompleteReadError, ValueError, KeyError) as error:
            done.append((time.monotonic() - started, kind, 0, False))
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            if writer is not None:
                writer.close()
            writer = None
    if writer is not None:
        writer.close()


def resources(server: psutil.Process) -> dict[str, float]:
    """Of the server process; and how many processes live under it (programs that run come and go)."""
    with server.oneshot():
        return {
            "rss_mib": round(server.memory_info().rss / 2**20, 1),
            "descriptors": server.num_fds(),
            "threads": server.num_threads(),
            "processes": len(server.children(recursive=True)),
        }


async def watch(server: psutil.Process, started: float, until: float, seen: list[dict[str, float]]) -> None:
    while time.monotonic() < until:
        seen.append({"at_s": round(time.monotonic() - started, 1)} | resources(server))
        await asyncio.sleep(SAMPLE_EVERY_S)


async def drive(port: int, server: psutil.Process, options: argparse.Namespace) -> tuple[list[tuple[float, str, int, bool]], list[dict[str, float]]]:
    done: list[tuple[float, str, int, bool]] = []
    seen: list[dict[str, float]] = []
    traffic = Traffic(options.seed, options.problems)
    started = time.monotonic()
    until = started + options.seconds
    await asyncio.gather(watch(server, started, until, seen), *(client(port, traffic, until, done) for _ in range(options.in_flight)))
    await asyncio.sleep(2)
    seen.append({"at_s": round(time.monotonic() - started, 1)} | resources(server))
    return done, seen


def summary(done: list[tuple[float, str, int, bool]], seen: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    times = sorted(one[0] for one in done)
    cut = statistics.quantiles(times, n=100)
    running = seen[:-1]
    quarter = max(1, len(running) // 4)
    means = {
        key: {
            name: round(statistics.mean(one[key] for one in part), 1)
            for name, part in (("second_quarter", running[quarter : 2 * quarter] or running), ("last_quarter", running[-quarter:]))
        }
        for key in ("rss_mib", "descriptors", "threads", "processes")
    }
    errors = [one for one in done if not one[3]]
    return {
        "requests": len(done),
        "per_second": round(len(done) / seconds, 1),
        "latency_s": {"p50": round(cut[49], 2), "p90": round(cut[89], 2), "p99": round(cut[98], 2), "max": round(times[-1], 2)},
        "by_kind": dict(Counter(one[1] for one in done)),
        "by_status": {str(status): count for status, count in sorted(Counter(one[2] for one in done).items())},
        "errors": len(errors),
        "error_rate": round(len(errors) / len(done), 6),
        "error_kinds": {f"{kind} {status}": count for (kind, status), count in Counter((one[1], one[2]) for one in errors).items()},
        "means": means,
        "idle_after": seen[-1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, help="the first so many problems only: what the server remembers of each is soon full then")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = [sys.executable, "-m", "rlaif", "serve", "--feedback", "execution", "--port", "0", "--sandbox.timeout-s", "3"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    try:
        port = int(process.stderr.readline().split("127.0.0.1:")[1].split()[0])
        threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
        load_before = os.getloadavg()
        done, seen = asyncio.run(drive(port, psutil.Process(process.pid), options))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load_before": load_before, "load_after": os.getloadavg()}
    found = {"machine": machine, "seconds": options.seconds, "in_flight": options.in_flight, "problems": options.problems} | summary(
        done, seen, options.seconds
    )
    print("".join(said[-60:]), file=sys.stderr)
    found |= {"server_exit_code": code, "server_said": len(said), "over_time": seen[:: max(1, len(seen) // 24)]}
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
