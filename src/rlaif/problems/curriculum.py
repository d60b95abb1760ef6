"""Which problems come next: those whose outcome is least certain for the policy as it is now.

A group of completions that all pass or all fail carries no advantage, so a problem's worth is near p(1-p) of its pass rate p. p is a
beta posterior over recent outcomes: old ones are discounted, because the policy they tell about is gone. A problem never tried has the
prior's worth, plus a bonus, so that exploring comes first and estimates follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif.types import DIFFICULTIES, Problem

PRIOR_PASS, PRIOR_FAIL = 1.0, 1.0
DISCOUNT = 0.7
"""Each update multiplies what was known by this: about three updates back, an outcome counts a third."""
FLOOR = 0.02
"""The least weight, relative to a problem at p = 0.5: nothing is given up, and a solved problem comes back to be kept."""
SHARPNESS = 2.0
"""Worth is raised to this: most problems are out of a small model's reach, and many small weights would still add up to most draws."""
UNSEEN_BONUS = 1.5
MEASURED_WEIGHT = 16.0
"""How many outcomes a measured pass rate counts for before anything was tried."""
OUTDATED_WEIGHT = 2.0
"""The same where it was measured before the policy was taught something else: which problems are easier is still known, how easy they are not."""
GUESSED_RATE = {"medium": 0.0, "hard": 0.0}
"""Where easy problems were measured and these were not: a model that passes few easy ones is first taken to pass none of these."""
STATE_VERSION = 1


class Curriculum:
    """Draws problems without repetition within a draw; `update` tells it how they went."""

    def __init__(
        self,
        problems: Sequence[Problem],
        seed: int,
        *,
        uniform: bool = False,
        measured: Mapping[str, float] | None = None,
        measured_weight: float = MEASURED_WEIGHT,
    ) -> None:
        """problems: what to draw from, at least one. uniform: draw all alike (each once an epoch), for a control or `--no-curriculum`.

        measured: pass rates in [0, 1] that a model of this size was seen to have, by problem id: where to start looking. measured_weight: how
        many outcomes each counts for.
        """
        if not problems:
            raise ValueError("a curriculum needs at least one problem")
        self.problems, self.uniform = list(problems), uniform
        self.index = {problem.id: i for i, problem in enumerate(self.problems)}
        if len(self.index) != len(self.problems):
            raise ValueError("two problems have the same id")
        count = len(self.problems)
        self.passed, self.failed = np.zeros(count), np.zeros(count)
        self.known = np.zeros(count, dtype=bool)
        for i, problem in enumerate(self.problems):
            rate = measured.get(problem.id, GUESSED_RATE.get(problem.difficulty)) if measured else None
            if rate is not None and problem.source != "user":
                self.passed[i], self.failed[i] = measured_weight * rate, measured_weight * (1 - rate)
                self.known[i] = True
        self.times_drawn = np.zeros(count, dtype=np.int64)
        self.tries, self.successes = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        self.rng = np.random.default_rng(seed)
        self.user = np.array([problem.source == "user" for problem in self.problems])

    def draw(self, n: int) -> list[Problem]:
        """n problems, all different unless n is more than there are (then every problem comes up before any comes up again).

        The user's own problems (`source == "user"`) come up in every draw, in up to a quarter of its places (one at least), those drawn least
        first: someone who adds three problems to five hundred must feel them, and an update is not to be about two problems again and again.
        """
        if n < 1:
            raise ValueError(f"cannot draw {n} problems")
        chosen: list[int] = []
        while len(chosen) < n:
            chosen += self._draw_once(min(n - len(chosen), len(self.problems)))
        self.times_drawn += np.bincount(chosen, minlength=len(self.problems))
        return [self.problems[i] for i in chosen]

    def _draw_once(self, n: int) -> list[int]:
        own = np.flatnonzero(self.user) if not self.user.all() else np.array([], dtype=int)
        own = self._least_drawn(own, max(1, n // 4))
        rest = np.flatnonzero(~self.user)
        if len(rest) < n - len(own):
            rest = np.flatnonzero(~np.isin(np.arange(len(self.problems)), own))
        if self.uniform:
            others = self._least_drawn(rest, n - len(own))
        else:
            weights = self.weights()[rest]
            others = self.rng.choice(rest, size=n - len(own), replace=False, p=weights / weights.sum()) if n > len(own) else rest[:0]
        chosen = np.concatenate([own, others]).astype(int)
        self.rng.shuffle(chosen)
        return chosen.tolist()

    def _least_drawn(self, candidates: np.ndarray, n: int) -> np.ndarray:
        shuffled = self.rng.permutation(candidates)
        return shuffled[np.argsort(self.times_drawn[shuffled], kind="stable")][:n]

    def weights(self) -> np.ndarray:
        """One positive weight a problem: the posterior mean of p(1-p), scaled so that certain indecision is 1, and the floor."""
        a, b = PRIOR_PASS + self.passed, PRIOR_FAIL + self.failed
        # E[p(1-p)] under Beta(a, b) is ab / ((a+b)(a+b+1)).
        worth = (4 * a * b / ((a + b) * (a + b + 1))) ** SHARPNESS
        return np.maximum(FLOOR, worth) * np.where((self.tries == 0) & ~self.known, UNSEEN_BONUS, 1.0)

    def update(self, problem_id: str, passed: int, total: int) -> None:
        """`passed` of `total` judged completions passed. A total of 0 (nothing could be judged) says nothing and changes nothing."""
        if not 0 <= passed <= total:
            raise ValueError(f"passed must be between 0 and total: {passed} of {total}")
        if total == 0:
            return
        i = self.index[problem_id]
        self.passed[i] = DISCOUNT * self.passed[i] + passed
        self.failed[i] = DISCOUNT * self.failed[i] + total - passed
        self.tries[i] += total
        self.successes[i] += passed

    def pass_rate(self, problem_id: str) -> float | None:
        """The discounted pass rate; None for a problem never tried."""
        i = self.index[problem_id]
        return float(self.passed[i] / (self.passed[i] + self.failed[i])) if self.tries[i] else None

    def summary(self) -> dict[str, Any]:
        """For the log and the report: how many problems are where, and where the draws went."""
        seen = self.tries > 0
        rate = np.divide(self.passed, self.passed + self.failed, out=np.zeros(len(seen)), where=seen)
        by_difficulty = {
            level: int(sum(self.times_drawn[i] for i, problem in enumerate(self.problems) if problem.difficulty == level)) for level in DIFFICULTIES
        }
        return {
            "problems": len(self.problems),
            "tried": int(seen.sum()),
            "never_passed": int((seen & (self.successes == 0)).sum()),
            "mastered": int((seen & (rate > 0.9)).sum()),
            "uncertain": int((seen & (rate >= 0.1) & (rate <= 0.9)).sum()),
            "mean_pass_rate": float(rate[seen].mean()) if seen.any() else None,
            "draws": int(self.times_drawn.sum()),
            "draws_by_difficulty": by_difficulty,
            "effective_problems": float(self.weights().sum() ** 2 / (self.weights() ** 2).sum()),
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready and exact: after `load_state_dict` the next draw is the one that would have come."""
        return {
            "version": STATE_VERSION,
            "ids_sha256": self._fingerprint(),
            "uniform": self.uniform,
            "passed": self.passed.tolist(),
            "failed": self.failed.tolist(),
            "tries": self.tries.tolist(),
            "successes": self.successes.tolist(),
            "times_drawn": self.times_drawn.tolist(),
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError if the state is of another set of problems, another order, or another version."""
        if state.get("version") != STATE_VERSION or state.get("ids_sha256") != self._fingerprint():
            raise ValueError("this curriculum was saved for other problems: resume with the same --problems, or start a new run")
        self.uniform = state["uniform"]
        self.passed, self.failed = np.array(state["passed"], dtype=float), np.array(state["failed"], dtype=float)
        for name in ("tries", "successes", "times_drawn"):
            setattr(self, name, np.array(state[name], dtype=np.int64))
        self.rng.bit_generator.state = state["rng"]

    def _fingerprint(self) -> str:
        return hashlib.sha256("\n".join(problem.id for problem in self.problems).encode()).hexdigest()
