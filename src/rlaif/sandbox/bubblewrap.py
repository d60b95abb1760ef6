"""The outermost layer where user namespaces (or root's own powers) allow it: the whole zygote inside one bubblewrap.

Inside there is no network, no other process, a file system of the interpreter and nothing else, and a small tmpfs. Docker's
default seccomp profile forbids it, so nothing depends on it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
TMPFS_BYTES = 64 * 2**20
ROOT_KEEPS = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_DAC_READ_SEARCH")
"""What a root zygote needs to give its children their own uids and scratch folders; the children keep none of it."""


def prefix(interpreter: str, folders: tuple[str, ...]) -> list[str] | None:
    """The words before the zygote's own command, or None where bubblewrap is missing or does not work. `folders`: readable inside."""
    program = shutil.which("bwrap") if sys.platform == "linux" else None
    if program is None:
        return None
    command = [program, "--die-with-parent", "--new-session"]
    if os.geteuid() == 0:
        command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        command += [word for name in ROOT_KEEPS for word in ("--cap-add", name)]
    else:
        command += ["--unshare-all"]
    for path in (*SYSTEM, *folders):
        if os.path.islink(path) and path in SYSTEM:
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(TMPFS_BYTES), "--tmpfs", "/tmp", "--chdir", "/"]
    return command if _works(tuple(command), interpreter) else None


@functools.lru_cache(maxsize=8)
def _works(command: tuple[str, ...], interpreter: str) -> bool:
    try:
        done = subprocess.run([*command, interpreter, "-I", "-S", "-c", "print(1)"], capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == b"1"


def readable(boot: Path, site: str | None) -> tuple[str, ...]:
    """The folders that a zygote reads: its interpreter's, its own modules', numpy's."""
    out = [os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix), str(boot.parent)]
    if site:
        out += [os.path.join(site, name) for name in ("numpy", "numpy.libs")]
    return tuple(path for path in dict.fromkeys(out) if path != "/usr")
