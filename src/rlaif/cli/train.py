"""`rlaif train`: flags in, a run directory out. The loop itself is `rlaif.train.loop`."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.cli.flags import parse_train


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; raises RlaifError."""
    config = parse_train(argv, prog="rlaif train")
    from rlaif.train.loop import train  # torch comes in here, after the flags were found good

    train(config)
    return 0
