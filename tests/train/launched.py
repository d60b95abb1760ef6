"""What test_distributed.py launches in several processes: `accelerate launch ... launched.py SETTINGS.json...`, one run for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rlaif.train import loop
from rlaif.train.distributed import world
from tests.train.conftest import Differing, tiny_config


def run(settings: dict) -> None:
    def build_engine(*_) -> Differing:
        Path(f"rank-{world().rank}-of-{world().size}").touch()  # the test must know that there were two
        return Differing()

    loop.build_engine = build_engine
    loop.train(tiny_config(**settings))


if __name__ == "__main__":
    for path in sys.argv[1:]:
        run(json.loads(Path(path).read_text()))
