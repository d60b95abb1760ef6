"""Which uids a zygote's children run under: a block of numbers that no other zygote of this machine has.

The kernel counts threads by uid, so with a shared block a thread bomb in one zygote would fail another's programs.
"""

from __future__ import annotations

import random
import socket
import sys

from rlaif.sandbox.inside import protocol

NAME = "\0rlaif-sandbox-uids-"
"""An abstract socket name, which ends with its owner, however that ends."""


def claim() -> tuple[int, socket.socket | None]:
    """(number of a block, the socket whose name says that it is taken for as long as it is open).

    Without abstract socket names (other systems than Linux, where children keep their uid), or with every block taken: any block, and None.
    """
    blocks = random.SystemRandom().sample(range(protocol.UID_BLOCKS), protocol.UID_BLOCKS)
    for block in blocks if sys.platform == "linux" else ():
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            taken.bind(f"{NAME}{block}")
            return block, taken
        except OSError:
            taken.close()
    return blocks[0], None
