"""How fast given completions are scored, and that memory does not grow with their number.

    python benchmarks/score_completions.py HUMANEVAL.jsonl --count 10000

Writes a file of canonical and empty HumanEval completions in turn, scores it, and prints programs a second and the peak memory of this
process after a tenth of the file and at its end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from pathlib import Path

from rlaif.config import SandboxConfig
from rlaif.evals import score_completions
from rlaif.problems import load_problems
from rlaif.sandbox import Sandbox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("humaneval", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.humaneval.read_text(encoding="utf-8").splitlines()]
    marks: dict[int, float] = {}
    done = itertools.count(1)

    def mark(line: int, problem: object, report: object) -> None:
        number = next(done)
        if number in (options.count // 10, options.count):
            marks[number] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as folder, Sandbox(SandboxConfig(workers=options.workers)) as sandbox:
        path = Path(folder) / "completions.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for i, row in zip(range(options.count), itertools.cycle(rows), strict=False):
                completion = row["canonical_solution"] if i // len(rows) % 2 == 0 else "    pass\n"
                stream.write(json.dumps({"task_id": row["task_id"], "completion": completion}) + "\n")
        start = time.perf_counter()
        scores = score_completions(path, load_problems(str(options.humaneval)), sandbox, on_report=mark)
        seconds = time.perf_counter() - start
    memory = ", ".join(f"{megabytes:.0f} MB after {count}" for count, megabytes in marks.items())
    print(f"{scores.scored} programs in {seconds:.1f} s: {scores.scored / seconds:.0f} a second; peak memory {memory}; {scores.result.success}")


if __name__ == "__main__":
    main()
