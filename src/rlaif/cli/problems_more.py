"""`rlaif problems more-tests`: a language model proposes tests, and those that pass the gate join the problems."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rlaif.cli.flags import CommandLine
from rlaif.cli.problems import SET, ProblemSetConfig, choose, refuse_to_write_over
from rlaif.config import JudgeConfig, SandboxConfig
from rlaif.errors import RunFailed, UsageError
from rlaif.problems import problem_to_dict

CHUNK = 16
"""Problems asked about together, and written down together: what was paid for is on disk before more is asked for."""


class MoreTestsConfig(ProblemSetConfig):
    """Which problems of the set, who writes the tests, and where the widened problems go."""

    judge: JudgeConfig = JudgeConfig()
    """Who writes: embedded (too small to write many good ones), local or api."""
    tests: int = Field(8, ge=1)
    """Tests to ask for, of each problem."""
    role: Literal["graded", "held_out"] = "graded"
    """What the admitted tests are for."""
    mutants: int = Field(12, ge=1)
    """Mistakes put into each reference: a test that none of them fails is refused."""
    max_tokens: int = Field(400, ge=1)
    """Longest reply, in tokens."""
    seed: int = 0
    out: Path = Path("more_tests.jsonl")
    """The file to write: every chosen problem, with its old tests and the admitted ones."""
    sandbox: SandboxConfig = SandboxConfig()


MORE_TESTS = CommandLine(
    "rlaif problems more-tests",
    "A model writes tests; admitted are those that the reference passes and that a mistake put into it fails.",
    "rlaif problems more-tests builtin --limit 2 --out more_tests.jsonl",
    MoreTestsConfig,
    positionals=(SET,),
    switches={"force": "Write over a file that exists."},
)


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    parsed = MORE_TESTS.parse(argv)
    config = parsed.settings
    problems = choose(parsed.word("NAME"), config)
    refuse_to_write_over(config.out, parsed)
    if not any(problem.reference for problem in problems):
        raise UsageError("None of these problems has a reference solution", "a test is tried on it before it is admitted", "add `reference` to them")
    from rlaif.judge.writer import make_writer
    from rlaif.problems.ai_tests import Admission, admit_tests, parse_tests, request_for_tests, with_admitted
    from rlaif.sandbox import Sandbox

    writer = make_writer(config.judge, cache_dir=config.out.parent)
    gate: Counter[str] = Counter()
    requested = unanswered = 0
    with Sandbox(config.sandbox) as sandbox, config.out.open("w", encoding="utf-8") as stream:
        for first in range(0, len(problems), CHUNK):
            chunk = problems[first : first + CHUNK]
            asked = [problem for problem in chunk if problem.reference and problem.entry_point]
            requested += len(asked)
            requests = [[{"role": "user", "content": request_for_tests(problem, config.tests)}] for problem in asked]
            replies = writer.write(requests, max_tokens=config.max_tokens, seed=config.seed + first) if asked else []
            found: dict[str, list[Admission]] = {}
            for problem, reply in zip(asked, replies, strict=True):
                unanswered += reply.error is not None
                proposed = parse_tests(problem, reply.text)[: config.tests]
                found[problem.id] = admit_tests(problem, proposed, sandbox, role=config.role, mutant_count=config.mutants, seed=config.seed)
                gate.update("admitted" if one.admitted else one.why for one in found[problem.id])
            stream.writelines(json.dumps(problem_to_dict(with_admitted(one, found.get(one.id, []))), ensure_ascii=False) + "\n" for one in chunk)
            stream.flush()
            print(f"{first + len(chunk)}/{len(problems)} problems: {gate['admitted']} of {gate.total()} tests admitted", file=sys.stderr, flush=True)
    for why, count in sorted(gate.items() - {("admitted", gate["admitted"])}):
        print(f"  refused, {why}: {count}")
    if unanswered and unanswered == requested:
        raise RunFailed(f"{writer.name} answered nothing", "every request failed", "rlaif doctor --judge api, or another --judge")
    also = f", {unanswered} requests unanswered" if unanswered else ""
    print(f"{gate['admitted']} of {gate.total()} tests by {writer.name} admitted{also}; {len(problems)} problems written to {config.out}")
    return 0
