"""The zygote's entry, run as `python -I -S -B boot.py ...`: makes the sibling modules importable without importing rlaif."""

import importlib
import importlib.util
import os
import sys


def _main() -> None:
    # Hooks that modules run in every forked child (logging's locks, threading's list, random's seed) cost a third of a program's
    # time and have nothing to do here: the zygote has one thread. OpenSSL doubles the pages to copy, and hashlib does without.
    os.register_at_fork = lambda **_: None  # type: ignore[assignment]
    sys.modules["_opcode"] = None
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location("_inside", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["_inside"] = package
    spec.loader.exec_module(package)
    # The library first: what is imported together lies together, and every page that a child touches is copied for it.
    importlib.import_module("_inside.modules").preload(False)
    importlib.import_module("_inside.heap").fill_holes()
    importlib.import_module("_inside.zygote").main(sys.argv[1])


_main()
