"""Ctrl-C that loses nothing: it waits for the optimiser step, and everywhere else it stops the run at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class InterruptGuard:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt, but inside `protected()` only when that block has ended.

    Weights are half-written during an optimiser step: a checkpoint taken there could not be resumed from.
    Off the main thread (where Python allows no handlers) it changes nothing.
    """

    def __init__(self) -> None:
        self._protected = False
        self._pending = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> InterruptGuard:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:
            self._previous.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._protected:
            self._pending = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def protected(self) -> Iterator[None]:
        """A stretch that must not be cut in half."""
        self._protected = True
        try:
            yield
        finally:
            self._protected = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
