"""One sandbox, one judge and the formula, kept for the life of a trainer, for whole batches and for single samples that come in together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rlaif.config import RewardConfig, parse_settings
from rlaif.errors import EnvironmentFailure, ProblemFileError, UsageError
from rlaif.problems import problem_to_dict
from rlaif.problems.export import unseal
from rlaif.rewards import RewardEngine
from rlaif.rewards.engine import make_engine
from rlaif.types import Feedback, Problem

log = logging.getLogger("rlaif")

LANES = 4
"""Batches of single samples that are scored side by side, so that a slow program holds up few others."""
LANE_BATCH = 16
JUDGED_BATCH = 64
"""With a model in this process there is one lane: the model is not shared by threads, and larger batches suit it."""
AT_ONCE_PER_CORE = 2
"""Programs per core. They wait for pipes and forks at times; more would bring the sandbox's wall clock (3 times the CPU limit) into play."""


class RewardUnavailable(EnvironmentFailure):
    """The sandbox or the judge could not answer, for reasons of its own: there is no reward, least of all 0.0."""


class Scorer:
    """Scores programs for another trainer. Thread-safe; close it, or use it as a context manager.

    settings: `RewardConfig`'s fields, nested as in a config file (`feedback="execution"`, `judge={"kind": "api", ...}`).
    engine: a `RewardEngine` of your own instead.
    Programs that run at once are `sandbox.workers`, by default twice the cores.
    Raises UsageError for settings that are wrong, EnvironmentFailure if there is no sandbox or no judge: at once, not in the first batch.
    """

    def __init__(self, config: RewardConfig | None = None, *, engine: RewardEngine | None = None, lanes: int | None = None, **settings: Any) -> None:
        if config is not None and settings:
            raise UsageError("Give a config or settings, not both", f"both were given: {', '.join(settings)}", "Scorer(config=...)")
        self.config = config or reward_config(settings)
        self._judged_here = _judged_here(self.config) if engine is None else True
        self.lanes = lanes or (1 if self._judged_here else LANES)
        self._stack = ExitStack()
        self.engine = engine or make_engine(self._shared_out(), self._stack)
        self._queue: queue.SimpleQueue[tuple[Problem, str, Future[Feedback]] | None] = queue.SimpleQueue()
        self._start = threading.Lock()
        self._whole = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def needs_tests(self) -> bool:
        """Whether a problem without tests is invalid input here."""
        return self.engine.judge is None

    def score(self, problems: Sequence[Problem], codes: Sequence[str]) -> list[Feedback]:
        """A whole batch, in order; the sandbox and the judge each have all of it in flight. One batch at a time."""
        with self._whole:
            return self.engine.score(problems, codes)

    def submit(self, problem: Problem, code: str) -> Future[Feedback]:
        """One sample, scored together with what else is waiting. Cancelling the future takes it out of the queue."""
        if self._closed:
            raise RewardUnavailable("The scorer is closed", "it was asked for a reward after close()")
        with self._start:
            while len(self._threads) < self.lanes:  # daemons: a trainer that never closes us must still be able to end
                self._threads.append(threading.Thread(target=self._lane, name="rlaif-lane", daemon=True))
                self._threads[-1].start()
        future: Future[Feedback] = Future()
        self._queue.put((problem, code, future))
        return future

    async def ascore(self, problem: Problem, code: str) -> Feedback:
        """One sample from an event loop, which goes on meanwhile."""
        return await asyncio.wrap_future(self.submit(problem, code))

    def close(self) -> None:
        """Score what is waiting, then stop the sandbox."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._stack.close()

    # -- lanes -------------------------------------------------------------------------------------------------------------------------

    def _shared_out(self) -> RewardConfig:
        """The settings with the programs that may run at once divided among the lanes."""
        sandbox = self.config.sandbox
        at_once = sandbox.workers if "workers" in sandbox.model_fields_set else AT_ONCE_PER_CORE * (os.cpu_count() or 1)
        return self.config.model_copy(update={"sandbox": sandbox.model_copy(update={"workers": max(1, at_once // self.lanes)})})

    def _lane(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            share = min(JUDGED_BATCH if self._judged_here else LANE_BATCH, 1 + self._queue.qsize() // self.lanes)
            while len(batch) < share:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:  # another lane's word to stop
                    self._queue.put(None)
                    break
                batch.append(item)
            taken = [item for item in batch if item[2].set_running_or_notify_cancel()]
            if taken:
                self._answer(taken)

    def _answer(self, taken: list[tuple[Problem, str, Future[Feedback]]]) -> None:
        try:
            found = self.engine.score([problem for problem, _, _ in taken], [code for _, code, _ in taken])
        except Exception as error:  # it goes to whoever waits for the sample
            if len(taken) == 1 or isinstance(error, EnvironmentFailure):
                for _, _, future in taken:
                    future.set_exception(error)
                return
            for item in taken:  # one sample must not cost the others their reward
                self._answer([item])
            return
        for (_, _, future), feedback in zip(taken, found, strict=True):
            future.set_result(feedback)


_shared: dict[str, Scorer] = {}
_sharing = threading.Lock()


def shared_scorer(settings: Mapping[str, Any]) -> Scorer:
    """The scorer of this process for these settings, made once: for trainers that name a function and keep nothing between its calls."""
    wanted = plain(settings)
    key = json.dumps(wanted, sort_keys=True, default=str)
    with _sharing:
        if key not in _shared:
            _shared[key] = Scorer(**wanted)
        return _shared[key]


def reward_config(settings: Mapping[str, Any]) -> RewardConfig:
    """Settings from another library's config (nested mappings of any kind). Raises UsageError that names the key."""
    return parse_settings(RewardConfig, plain(settings), "the reward's settings")


def plain(value: Any) -> Any:
    """Nested mappings of any kind (OmegaConf's, say) as dicts."""
    return {str(key): plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def problem_of_row(text: object) -> Problem:
    """The problem that `rlaif problems export` put into a row. Raises ProblemFileError for anything else.

    Its id becomes a digest of the whole problem: what is remembered about one problem must never be taken for another's of the same name.
    """
    if not isinstance(text, str):
        raise ProblemFileError("the row's problem", None, None, f"expected the text that `rlaif problems export` wrote, found {type(text).__name__}")
    return own_id(unseal(text))


def own_id(problem: Problem) -> Problem:
    """The problem under an id that is a digest of all of it."""
    text = json.dumps(problem_to_dict(problem), sort_keys=True)
    return replace(problem, id=hashlib.sha256(text.encode()).hexdigest()[:32])


def reward_or_raise(feedback: Feedback) -> float:
    """The reward. Raises RewardUnavailable if nobody could say, UsageError if the row is at fault."""
    if feedback.reward is not None:
        return feedback.reward
    why = "; ".join(feedback.reasons)
    if feedback.outcome == "invalid_input":
        raise UsageError("This row cannot be scored", why, "make the data set with `rlaif problems export`")
    raise RewardUnavailable("No reward could be computed", why, "rlaif doctor says what is missing")


def _judged_here(config: RewardConfig) -> bool:
    if config.feedback == "execution":
        return False
    return config.judge.kind in ("embedded", "local") or bool(config.judge.ensemble)
