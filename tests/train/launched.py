"""What test_distributed.py launches in several processes: `accelerate launch ... launched.py SETTINGS.json...`, one run for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from rlaif.train import loop
from rlaif.train.distributed import world
from tests.train.conftest import Differing, SmoothAdamW, tiny_config

build_policy = loop.build_policy


def noted(*args: Any, **kwargs: Any) -> Any:
    """The policy, and a file that says who holds it and whether whole: the test must know that there were two, and two halves."""
    policy = build_policy(*args, **kwargs)
    weights = list(policy.model.parameters())
    here = sum((one.to_local() if isinstance(one, DTensor) else one).numel() for one in weights)
    sharded = here < 0.6 * sum(one.numel() for one in weights)
    Path(f"rank-{world().rank}-of-{world().size}{'-sharded' * sharded}").touch()
    return policy


def run(settings: dict) -> None:
    loop.build_policy = noted
    loop.build_engine = lambda *_: Differing()
    torch.optim.AdamW = SmoothAdamW
    loop.train(tiny_config(**settings))


if __name__ == "__main__":
    for path in sys.argv[1:]:
        run(json.loads(Path(path).read_text()))
