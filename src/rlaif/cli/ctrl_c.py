"""Ctrl-C that is heard while a person types, whichever thread the system gave it to.

CPython only notes a signal; the main thread acts on the note when it runs Python again. Waiting for a key in GNU readline it does not run
Python until a system call is interrupted, and none is if the signal came in the moment before the wait, or went to one of the threads
that a model's arithmetic has started by then. The note is then found at the next key.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUDGE_EVERY_S = 0.05


@contextmanager
def heard_at_once() -> Iterator[None]:
    """While entered, SIGINT raises KeyboardInterrupt in the main thread soon, even out of `input`. Elsewhere than there it changes nothing.

    The signal's own handler writes to a pipe at once; a thread that reads it interrupts the main thread with SIGURG, which nobody else
    uses and whose handler does nothing, until SIGINT's handler has run.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_kill"):
        yield
        return
    heard, main = threading.Event(), threading.get_ident()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    def nudge() -> None:
        while signals := os.read(reading, 64):
            if signal.SIGINT in signals:
                while not heard.wait(_NUDGE_EVERY_S):
                    signal.pthread_kill(main, signal.SIGURG)
                heard.clear()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, handler) for number, handler in ((signal.SIGINT, on_interrupt), (signal.SIGURG, lambda *_: None))}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=nudge, name="ctrl-c", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.set()
        os.close(writing)  # the end of the pipe ends the thread
        thread.join()
        os.close(reading)
