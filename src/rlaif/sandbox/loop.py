"""A small scheduler: programs are generators that yield what they wait for, and many wait at once in one thread.

Threads would cost a switch of the interpreter lock a frame; asyncio would bring an event loop into the trainer's thread.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
READ, WRITE = select.POLLIN, select.POLLOUT


class Wait:
    """Resume when one of `fds` (descriptor, READ or WRITE) is ready, or after `patience_s`. `spent_s`: set on resuming, how long it was.

    `over`: the work is done and only its end is awaited, so that the task holds no worker meanwhile.
    """

    __slots__ = ("fds", "over", "patience_s", "spent_s", "until")

    def __init__(self, fds: tuple[tuple[int, int], ...], patience_s: float, over: bool = False) -> None:
        self.fds, self.patience_s, self.over = fds, patience_s, over
        self.until = self.spent_s = 0.0


Task = Generator[Wait, list[int], T]
"""Sent back into a task: the ready descriptors, or an empty list if the time passed with nothing ready."""


def run_all(jobs: Iterable[Any], start: Callable[[Any], Task[T]], workers: int) -> Iterator[T]:
    """Run `start(job)` for each job, `workers` at once, and yield the results in order. Holds about 4·workers results at most.

    The time that the caller keeps a result before asking for the next one is nobody's waiting time: no program may fail because
    an optimiser step came between its question and its answer.
    """
    poll = select.poll()
    source = iter(jobs)
    order: deque[int] = deque()
    done: dict[int, T] = {}
    live: dict[int, Task[T]] = {}
    waits: dict[int, Wait] = {}
    owners: dict[int, int] = {}
    exhausted = False
    counter = 0
    away_s = 0.0

    def clock() -> float:
        return time.monotonic() - away_s

    def free() -> bool:
        return len(live) - sum(wait.over for wait in waits.values()) < workers and len(live) < 2 * workers and len(order) < 4 * workers

    def advance(key: int, ready: list[int] | None) -> None:
        try:
            wait = next(live[key]) if ready is None else live[key].send(ready)
        except StopIteration as stop:
            done[key] = stop.value
            del live[key]
            return
        waits[key] = wait
        wait.until = clock() + wait.patience_s
        for fd, events in wait.fds:
            poll.register(fd, events)
            owners[fd] = key

    try:
        while True:
            while not exhausted and free():
                try:
                    job = next(source)
                except StopIteration:
                    exhausted = True
                    break
                live[counter] = start(job)
                order.append(counter)
                advance(counter, None)
                counter += 1
            while order and order[0] in done:
                result = done.pop(order.popleft())
                left = time.monotonic()
                yield result
                away_s += time.monotonic() - left
            if not live:
                if exhausted and not order:
                    return
                continue
            if not exhausted and free():
                continue
            soonest = min(wait.until for wait in waits.values())
            ready: dict[int, list[int]] = {}
            for fd, _ in poll.poll(max(0.0, soonest - clock()) * 1000 + 1):
                ready.setdefault(owners[fd], []).append(fd)
            now = clock()
            # What is readable counts before the clock: after a long pause of this process an answer in time is still in time.
            for key in [key for key, wait in waits.items() if key in ready or wait.until <= now]:
                wait = waits.pop(key)
                wait.spent_s = now - wait.until + wait.patience_s
                for fd, _ in wait.fds:
                    poll.unregister(fd)
                    del owners[fd]
                advance(key, ready.get(key, []))
    finally:
        for task in live.values():
            task.close()


def run_one(task: Task[T]) -> T:
    """Run one task to its end."""
    return next(run_all([task], lambda job: job, 1))
