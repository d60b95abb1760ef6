"""Environments for the checks in this folder: each has one of its own, because these libraries pin versions that exclude each other and ours.

A check is a script that is started with the project's Python and goes on in its own environment:

    if __name__ == "__main__":
        inside(NAME, PACKAGES, main)

`main()` returns what was found, as JSON; it is printed and written beside the script. RLAIF_INTEROP is the folder that holds the environments
(default: ~/.cache/rlaif/interop); delete it to start afresh. The first start of a check downloads its packages. RLAIF_PYTHON is the Python that
the check was started with, for a server that runs outside of the environment.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RLAIF_NEEDS = ("pydantic", "ruff", "radon")
"""What execution feedback needs. rlaif is run from its source: with all of its dependencies these environments would not resolve."""
HOME = Path(os.environ.get("RLAIF_INTEROP", Path.home() / ".cache/rlaif/interop"))


def inside(name: str, steps: Sequence[Sequence[str]], main: Callable[[], dict[str, Any]], shown: Sequence[str] = ()) -> None:
    """Run `main` in the environment `name`, made by these pip steps (lists of arguments), and write its JSON. shown: packages to name versions of."""
    script = Path(sys.argv[0]).resolve()
    if os.environ.get("RLAIF_INTEROP_INSIDE") == name:
        found = main()
        out = {"versions": {package: version(package) for package in shown} | {"python": platform.python_version()}} | found
        script.with_suffix(".json").write_text(json.dumps(out, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(out, indent=2))
        sys.exit(0 if found.get("ok", True) else 1)
    python = HOME / name / "bin" / "python"
    done = HOME / name / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != [list(step) for step in steps]:
        subprocess.run([sys.executable, "-m", "venv", str(HOME / name)], check=True)
        for step in steps:
            subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *step], check=True)
        done.write_text(json.dumps([list(step) for step in steps]))
    path = os.pathsep.join((str(ROOT / "src"), str(script.parent)))
    environment = os.environ | {"RLAIF_INTEROP_INSIDE": name, "RLAIF_PYTHON": sys.executable, "PYTHONPATH": path}
    sys.exit(subprocess.run([str(python), str(script), *sys.argv[1:]], env=environment).returncode)
