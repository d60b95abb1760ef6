"""What a run ran on: enough to judge its timings and to repeat it. No host name, user name or environment variable is recorded."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("rlaif", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "scipy", "ruff", "openai")


def collect_environment() -> dict[str, Any]:
    """Versions, machine and git state; never fails and never imports torch (versions come from the installed metadata)."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": {"cpu": _cpu_name(), "cores": _cores(), "memory_bytes": _memory_bytes()},
        "git": _git_state(Path(__file__).parent),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the source tree that runs, and whether it had changes; None for an installed copy or without git."""
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # a copy installed inside someone else's repository is not that repository
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # No prompts and no optional locks: a run beside someone's editor must not get in the way of their git.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=True, env=environment)
    return done.stdout.strip()
