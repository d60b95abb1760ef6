"""macOS's layer: `sandbox-exec` around the zygote, where it is present. Deprecated by Apple, still shipped, and better than nothing.

Written to its documentation and unit-tested as text; the measured platforms are Linux.
"""

from __future__ import annotations

import os
import shutil
import sys


def profile(folders: tuple[str, ...]) -> str:
    """The policy: nothing, but reading the interpreter and a few system folders, forking, and talking over what was handed in."""
    for folder in folders:
        if '"' in folder or "\\" in folder:
            raise ValueError(f"a path that the profile cannot hold: {folder}")
    subpaths = " ".join(f'(subpath "{folder}")' for folder in ("/usr/lib", "/System/Library", "/usr/share/zoneinfo", *folders))
    return "\n".join(
        [
            "(version 1)",
            "(deny default)",
            "(allow process-fork)",
            "(allow process-exec* (literal " + f'"{os.path.realpath(sys.executable)}"' + "))",
            "(allow signal (target same-sandbox))",
            "(allow sysctl-read)",
            "(allow process-info* (target same-sandbox))",
            "(allow file-read-metadata)",
            f'(allow file-read* {subpaths} (literal "/dev/null") (literal "/dev/urandom") (literal "/dev/random"))',
            '(allow file-write-data (literal "/dev/null"))',
            "(deny network*)",
        ]
    )


def prefix(folders: tuple[str, ...]) -> list[str] | None:
    """The words before the zygote's own command, or None where there is no sandbox-exec."""
    program = shutil.which("sandbox-exec") if sys.platform == "darwin" else None
    return [program, "-p", profile(folders)] if program else None
