"""A small scheduler: programs are generators that yield what they wait for, and many wait at once in one thread.

Threads would cost a switch of the interpreter lock a frame; asyncio would bring an event loop into the trainer's thread.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
READ, WRITE = select.POLLIN, select.POLLOUT


class Wait(NamedTuple):
    """Resume when one of `fds` (descriptor, READ or WRITE) is ready, or at `deadline` (time.monotonic seconds)."""

    fds: tuple[tuple[int, int], ...]
    deadline: float


Task = Generator[Wait, list[int], T]
"""Sent back into a task: the ready descriptors, or an empty list if the deadline passed with nothing ready."""


def run_all(jobs: Iterable[Any], start: Callable[[Any], Task[T]], workers: int) -> Iterator[T]:
    """Run `start(job)` for each job, `workers` at once, and yield the results in order. Holds about 4·workers results at most."""
    poll = select.poll()
    source = iter(jobs)
    order: deque[int] = deque()
    done: dict[int, T] = {}
    live: dict[int, Task[T]] = {}
    waits: dict[int, Wait] = {}
    owners: dict[int, int] = {}
    exhausted = False
    counter = 0

    def advance(key: int, ready: list[int] | None) -> None:
        try:
            wait = next(live[key]) if ready is None else live[key].send(ready)
        except StopIteration as stop:
            done[key] = stop.value
            del live[key]
            return
        waits[key] = wait
        for fd, events in wait.fds:
            poll.register(fd, events)
            owners[fd] = key

    try:
        while True:
            while not exhausted and len(live) < workers and len(order) < 4 * workers:
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
                yield done.pop(order.popleft())
            if not live:
                if exhausted and not order:
                    return
                continue
            if len(live) < workers and not exhausted and len(order) < 4 * workers:
                continue
            soonest = min(wait.deadline for wait in waits.values())
            ready: dict[int, list[int]] = {}
            for fd, _ in poll.poll(max(0.0, soonest - time.monotonic()) * 1000 + 1):
                ready.setdefault(owners[fd], []).append(fd)
            now = time.monotonic()
            # What is readable counts before the clock: after a long pause of this process an answer in time is still in time.
            for key in [key for key, wait in waits.items() if key in ready or wait.deadline <= now]:
                for fd, _ in waits.pop(key).fds:
                    poll.unregister(fd)
                    del owners[fd]
                advance(key, ready.get(key, []))
    finally:
        for task in live.values():
            task.close()


def run_one(task: Task[T]) -> T:
    """Run one task to its end."""
    return next(run_all([task], lambda job: job, 1))
