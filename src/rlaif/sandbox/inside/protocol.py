"""The bytes between the trusted client (P), the zygote (Z), solution children (S) and test children (T).

Three kinds of channel, all Unix stream sockets:

* control, P to Z: messages of one to MAX_BATCH `SPAWN` records, one a child, with their descriptors attached by SCM_RIGHTS in the same order;
* status, one per program: Z sends one `EXIT` record when the child is dead; KILL or a hang-up from P means "kill it", TIMES
  asks for a record of what it has used so far;
* channel, one per program: numbered frames of JSON between P (or T) and S, and between P and T.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

SPAWN = struct.Struct("<BBHIQQQ")
"""kind, which descriptors follow (bits), 0, CPU limit in ms, address space, largest file, 0."""
HAS_CHANNEL, HAS_PEER, HAS_STDIN, HAS_STDOUT = 1, 2, 4, 8
KIND_SOLUTION, KIND_TEST, KIND_SCRIPT = 0, 1, 2
MAX_BATCH = 16
UID_BLOCKS = 67
"""How many zygotes on one machine can have uids of their own for their children (64 each)."""

EXIT = struct.Struct("<iqqBi")
"""wait status, CPU microseconds, 0, reason, errno of a failed fork.

With REASON_ALIVE: 0, CPU microseconds so far, microseconds spent ready to run with no processor free, reason, 0."""
REASON_NONE, REASON_CPU, REASON_ASKED, REASON_SPAWN_FAILED, REASON_MEMORY, REASON_ALIVE = range(6)
KILL, TIMES = b"K", b"T"

FRAME = struct.Struct("<IIB")
"""payload length, number of the question, kind."""
ASK, ANSWER, BYE, CALLBACK, RETURN = 1, 2, 3, 4, 5

MAX_FRAME = 4 * 2**20
"""Largest payload in bytes that anyone accepts. A solution whose answer is larger has failed."""
MAX_TEXT = 2000
"""Characters of an error or a value shown to people."""


class Broken(Exception):
    """The other side hung up, or sent what the protocol does not allow."""


class Oversize(Broken):
    """A frame longer than MAX_FRAME."""


# The json module's own parts without what `dumps` and `loads` put around them, which a child would run once each and page by page.
_encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_scan = json.JSONDecoder().scan_once  # pyright: ignore[reportAttributeAccessIssue]
_c_encoder = json.encoder.c_make_encoder  # pyright: ignore[reportAttributeAccessIssue]  (None in an interpreter without it)
_chunks: Any = _encoder.iterencode
if _c_encoder is not None:
    _chunks = _c_encoder(None, _encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)


def parse(payload: bytes) -> Any:
    """The object of a frame. Raises ValueError for what is not JSON in one piece, RecursionError."""
    text = payload.decode("ascii")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON text")
    return value


def pack(number: int, kind: int, obj: Any) -> bytes:
    """One frame. Raises Oversize."""
    payload = "".join(_chunks(obj, 0)).encode("ascii")
    if len(payload) > MAX_FRAME:
        raise Oversize(f"{len(payload)} bytes")
    return FRAME.pack(len(payload), number & 0xFFFFFFFF, kind) + payload


class BlockingChannel:
    """Frames over a blocking descriptor, for S and T. Uses os.read and os.write only: no imports at run time."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, number: int, kind: int, obj: Any) -> None:
        view = memoryview(pack(number, kind, obj))
        while view:
            view = view[os.write(self.fd, view) :]

    def _exactly(self, count: int) -> bytes:
        chunk = os.read(self.fd, count)
        if len(chunk) == count:
            return chunk
        parts = [chunk]
        while True:
            if not chunk:
                raise Broken("hung up")
            count -= len(chunk)
            if not count:
                return b"".join(parts)
            chunk = os.read(self.fd, min(count, 2**20))
            parts.append(chunk)

    def recv(self) -> tuple[int, int, Any]:
        """(number, kind, object). Raises Broken at the end of the stream and ValueError for what is not JSON."""
        length, number, kind = FRAME.unpack(self._exactly(FRAME.size))
        if length > MAX_FRAME:
            raise Oversize(f"{length} bytes")
        return number, kind, parse(self._exactly(length))
