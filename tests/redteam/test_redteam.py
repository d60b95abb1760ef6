"""No attack passes a test, none leaves anything behind, none becomes an infrastructure fault; every honest program passes."""

from __future__ import annotations

import glob
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif.config import SandboxConfig
from rlaif.sandbox import Job, Sandbox
from rlaif.types import TestReport

from .programs import EXPECTED, LOWERED, NUMBER, OPAQUE, Program, attacks, honest

ANSWERS = Path(tempfile.gettempdir()) / f"rlaif-redteam-{os.getpid()}"
ATTACKS = attacks(str(ANSWERS / "answers.json"))
HONEST = honest()
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/root", "/home", "/etc", "/", "/run", os.path.dirname(os.__file__), os.getcwd())
FAST = SandboxConfig(timeout_s=0.3, workers=3)


class Battle:
    """All attacks on both paths, run once, with what the machine looked like before and after."""

    def __init__(self) -> None:
        ANSWERS.mkdir(mode=0o755)
        self.answers = ANSWERS / "answers.json"
        self.text = json.dumps(EXPECTED)
        self.answers.write_text(self.text)
        os.chmod(self.answers, 0o666)
        self.stat = os.stat(self.answers)
        self.reports: dict[tuple[str, str, str], TestReport] = {}
        self.environment = dict(os.environ)
        self.descriptors = len(os.listdir("/proc/self/fd"))
        with Sandbox(FAST) as box:
            self.grade = box.grade
            self.before_s = self.honest_s(box)
            zygote = box._common.process
            assert zygote is not None
            for problem in (LOWERED, OPAQUE, NUMBER):
                jobs = (Job(problem, program.code) for program in ATTACKS)
                for program, report in zip(ATTACKS, box.run_many(jobs), strict=True):
                    self.reports[problem.id, program.kind, program.name] = report
            self.after_s = self.honest_s(box)
            self.same_zygote = box._common.process is zygote and zygote.poll() is None
            self.starts = box._common.starts
            box._common.drop_spares()  # the next programs' own processes
            self.fresh = box.run(LOWERED, NOTICES)
            box._common.drop_spares()
            self.strays = wait_for_no_strays(zygote.pid, box._hello["first_uid"])
        self.descriptors_after = len(os.listdir("/proc/self/fd"))

    @staticmethod
    def honest_s(box: Sandbox) -> float:
        times = []
        for _ in range(21):
            start = time.perf_counter()
            assert box.run(LOWERED, HONEST[0].code).all_passed
            times.append(time.perf_counter() - start)
        return statistics.median(times)


NOTICES = """
import builtins, json, os, random, sys
assert not hasattr(builtins, "RLAIF_PWNED") and not hasattr(json, "RLAIF_PWNED")
assert "RLAIF_PWNED" not in os.environ and "/tmp" not in sys.path
assert os.listdir(".") == [] if os.access(".", os.W_OK) else True
def solve(n): return [n, n * n + 1, str(n) * 2]
"""


def strays(zygote: int, first_uid: int) -> list[str]:
    """Processes that a program left: children of the zygote, or anyone under its uids."""
    out = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            status = Path(folder, "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        uid = int(fields["Uid"].split()[0])
        if (int(fields["PPid"]) == zygote and fields["Name"].strip() != "bwrap") or first_uid <= uid < first_uid + 64:
            out.append(f"{folder} {fields['Name'].strip()} of {fields['PPid']} as {uid} (zygote {zygote}, its uids from {first_uid})")
    return out


def wait_for_no_strays(zygote: int, first_uid: int) -> list[str]:
    until = time.monotonic() + 5
    while (left := strays(zygote, first_uid)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


@pytest.fixture(scope="session")
def battle() -> Iterator[Battle]:
    try:
        yield Battle()
    finally:
        for path in ANSWERS.glob("*"):
            path.unlink()
        ANSWERS.rmdir()


def _name(program: Program) -> str:
    return f"{program.kind}: {program.name}"


@pytest.mark.parametrize("program", ATTACKS, ids=_name)
@pytest.mark.parametrize("path", ["lowered", "opaque", "number"])
def test_attack_earns_nothing(battle: Battle, program: Program, path: str) -> None:
    report = battle.reports[path, program.kind, program.name]
    assert report.outcome in ("scored", "policy_failure"), report.message
    assert report.passed == 0, [result for result in report.results if result.passed]
    assert not report.all_passed


def test_nothing_is_left(battle: Battle) -> None:
    assert battle.strays == []
    assert [path for place in PLACES for path in glob.glob(f"{place}/*rlaif_pwned*")] == []
    assert battle.answers.read_text() == battle.text
    now = os.stat(battle.answers)
    assert (now.st_mode, now.st_uid, now.st_nlink, now.st_mtime_ns) == (battle.stat.st_mode, battle.stat.st_uid, 1, battle.stat.st_mtime_ns)
    assert dict(os.environ) | {"PYTEST_CURRENT_TEST": ""} == battle.environment | {"PYTEST_CURRENT_TEST": ""}
    assert battle.descriptors_after <= battle.descriptors


def test_the_zygote_survived_and_is_as_fast(battle: Battle) -> None:
    assert battle.same_zygote
    assert battle.starts == 1
    assert battle.fresh.all_passed, battle.fresh
    assert battle.after_s < 3 * battle.before_s + 0.01


def test_there_are_enough_of_them() -> None:
    kinds: dict[str, int] = {}
    for program in ATTACKS:
        kinds[program.kind] = kinds.get(program.kind, 0) + 1
    assert len(ATTACKS) >= 80
    assert len(kinds) == 24
    assert min(kinds.values()) >= 3
    assert len(HONEST) >= 25


@pytest.fixture(scope="session")
def fair() -> Iterator[Sandbox]:
    with Sandbox(SandboxConfig(timeout_s=5)) as box:
        yield box


@pytest.mark.parametrize("program", HONEST, ids=_name)
@pytest.mark.parametrize("problem", [LOWERED, OPAQUE], ids=lambda problem: problem.id)
def test_honest_program_passes(fair: Sandbox, program: Program, problem) -> None:
    report = fair.run(problem, program.code)
    assert report.all_passed, (report.failure, report.message, [result.error for result in report.results])
    assert report.path == problem.id
