"""A hard cap on what the API judge may use, checked before each request is sent."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rlaif.config import JudgeConfig
from rlaif.errors import UsageError


class BudgetExhausted(Exception):
    """The next request could pass the cap, so it was not sent."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far."""

    prompt_tokens: int
    completion_tokens: int
    requests: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Budget:
    """Reserves the worst case before a request and settles what it really used after. Thread-safe.

    Because the worst case is reserved, requests in flight together cannot pass the cap together.
    """

    def __init__(self, config: JudgeConfig, spent: Usage) -> None:
        prices = (config.usd_per_million_prompt_tokens, config.usd_per_million_completion_tokens)
        if config.max_spend_usd is not None and None in prices:
            raise UsageError(
                "max_spend_usd needs the two prices",
                "without them money cannot be counted",
                "set usd_per_million_prompt_tokens and ..._completion_tokens",
            )
        self._max_tokens, self._max_usd = config.max_tokens_total, config.max_spend_usd
        self._usd_prompt, self._usd_completion = (price or 0.0 for price in prices)
        self._lock = threading.Lock()
        self._prompt, self._completion, self._requests = spent.prompt_tokens, spent.completion_tokens, spent.requests
        self._held_prompt = self._held_completion = 0

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self._usd_prompt + completion_tokens * self._usd_completion) / 1e6

    @property
    def spent(self) -> Usage:
        with self._lock:
            return Usage(self._prompt, self._completion, self._requests)

    @property
    def spent_usd(self) -> float:
        return self.usd(self.spent.prompt_tokens, self.spent.completion_tokens)

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Set the worst case of one request aside; raises BudgetExhausted if it does not fit under every cap."""
        with self._lock:
            prompt = self._prompt + self._held_prompt + prompt_tokens
            completion = self._completion + self._held_completion + completion_tokens
            if self._max_tokens is not None and prompt + completion > self._max_tokens:
                raise BudgetExhausted(f"the cap of {self._max_tokens} tokens would be passed ({self._prompt + self._completion} used)")
            if self._max_usd is not None and self.usd(prompt, completion) > self._max_usd:
                raise BudgetExhausted(f"the cap of {self._max_usd} USD would be passed ({self.usd(self._prompt, self._completion):.4f} spent)")
            self._held_prompt += prompt_tokens
            self._held_completion += completion_tokens

    def settle(self, held: tuple[int, int], used: tuple[int, int]) -> None:
        """Give a reservation back and book what was used."""
        with self._lock:
            self._held_prompt -= held[0]
            self._held_completion -= held[1]
            self._prompt += used[0]
            self._completion += used[1]
            self._requests += 1
