"""The allocator keeps what is freed, and gives it back where memory is short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.policy import memory

GLIBC = pytest.mark.skipif(memory._glibc("mallopt") is None, reason="glibc only")
FAULTS = """
import resource, sys, torch
from rlaif.policy.memory import keep_freed_memory, give_back_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(10 * 2**20) for _ in range(4)]  # 40 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
first, *_, again = (faults() for _ in range(8))  # an aligned block needs a little more room than the one before it left
give_back_memory()
print(kept, first, again, faults())
"""


def run(**environment: str) -> tuple[bool, int, int, int]:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=os.environ | environment)
    kept, *faults = done.stdout.split()
    return kept == "True", *map(int, faults)  # type: ignore[return-value]


@GLIBC
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    kept, first, again, after = run()
    assert kept
    assert min(first, after) > 30_000  # 160 MiB in pages of 4 KiB
    assert again < 1000


@GLIBC
def test_who_sets_the_allocator_oneself_is_left_alone() -> None:
    kept, _, again, _ = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert not kept
    assert again > 30_000


def machine(folder: Path, available: int, limit: str = "", current: int = 0, cache: int = 0) -> float:
    (folder / "meminfo").write_text(f"MemTotal:  1000 kB\nMemFree: 5 kB\nMemAvailable:  {available} kB\n")
    if limit:
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 3\ninactive_file {cache}\n")
    return memory.available_share(folder, folder)


def test_available_memory(tmp_path: Path) -> None:
    assert memory.available_share(tmp_path / "nowhere") == 0.0
    assert machine(tmp_path, 400) == 0.4
    assert machine(tmp_path, 400, "max") == 0.4
    assert machine(tmp_path, 400, "1000", 950, 50) == pytest.approx(0.1)
    assert machine(tmp_path, 400, "1000", 300, 50) == 0.4
    assert machine(tmp_path, 400, "1000", 2000, 0) == 0.0


@pytest.mark.parametrize(("share", "trimmed"), [(0.9, [0]), (0.1, [0, 0])])
def test_memory_is_given_back_where_it_is_short(share: float, trimmed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(memory, "_glibc", lambda name: calls.append if name == "malloc_trim" else None)
    monkeypatch.setattr(memory, "available_share", lambda: share)
    memory.give_back_memory()
    memory.give_back_memory(if_scarce=True)
    assert calls == trimmed
