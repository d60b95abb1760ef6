"""What a child does from its first question to its last, played in Z beforehand, so that the fork hands it down.

Nothing is then made lazily after the fork, and the interpreter has specialised every instruction on the way. One that is
not looks names up, caches what it found and counts how often it ran, each in a page of its own, and every page that a child
writes to is copied for it.
"""

from __future__ import annotations

import _socket
import sys
from collections.abc import Callable
from typing import Any

from . import solution, tester
from .protocol import ANSWER, ASK, BYE, pack

TIMES = 12
"""An instruction is specialised after eight runs; forty times give no more than twelve."""

_CODE = "import math\nclass A:\n    pass\ndef f(x):\n    print(x)\n    return [x]\n"
_TEST = "def check(candidate):\n    assert candidate([1]) == [1], 'x'\n    assert abs(candidate(2) - 1.5) < 1e-6\n"


def play() -> None:
    """Call before the heap is frozen. Leaves no trace but what it is for."""
    questions = [["f(1)", "f('a')", "a = [1]\nf(a)", "f(x=(1, 'a', 2.5, None, True))", "f({1: {2}})"], ["1 / 0"]]
    asked = [(ASK, {"preamble": "import math", "code": _CODE, "entry": "f"}), (ASK, {"op": "evals", "x": questions})]
    asked += [(ASK, {"op": "entry", "a": [argument], "k": {}}) for argument in ([1], "a", 2)]
    lowered = _frames(asked, [1] * len(asked))
    job = {"preamble": "import math", "entry": "f", "class": False}
    tested = _frames([(ASK, job), *[(ASK, {"form": "code", "input": _TEST})] * 2], [1, 2, 3])
    answers = [(ANSWER, {"v": [1], "m": [[0, [2]]]}), (ANSWER, {"e": ["ValueError", "x"]})] * 2
    answered = _frames(answers, range(1_000_001, 1_000_001 + len(answers)), last=False)
    solution.renew()
    for _ in range(TIMES):
        _with_channels((lowered,), solution.main)
        solution.renew()
        _with_channels((tested, answered), tester.main)
    for name in ("tests", "solution"):
        sys.modules.pop(name, None)


def _frames(messages: list[tuple[int, Any]], numbers: Any, last: bool = True) -> bytes:
    """What the other side of a channel would send, all at once."""
    data = b"".join(pack(number, kind, message) for number, (kind, message) in zip(numbers, messages, strict=True))
    return data + pack(0, BYE, None) if last else data


def _with_channels(inputs: tuple[bytes, ...], child: Callable[..., None]) -> None:
    """`child` on channels from which it reads these bytes; what it writes is dropped with them."""
    pairs = [_socket.socketpair() for _ in inputs]
    for (_, far), data in zip(pairs, inputs, strict=True):
        far.sendall(data)
    child(*(near.fileno() for near, _ in pairs))
    for near, far in pairs:
        near.close()
        far.close()
