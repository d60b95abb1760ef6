"""TRL 1.16 and later: a reward function for `GRPOTrainer` and `RLOOTrainer`.

    from rlaif.integrations.trl import CodeReward
    rows = load_dataset("json", data_files="train.jsonl", split="train")
    trainer = GRPOTrainer(model, reward_funcs=CodeReward(feedback="execution"), train_dataset=rows)

with the rows from `rlaif problems export --split train --format trl --out train.jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rlaif.config import RewardConfig
from rlaif.errors import UsageError
from rlaif.integrations.replies import code_of_reply, text_of
from rlaif.integrations.scorer import Scorer, log, problem_of_row
from rlaif.types import Feedback

METRICS = ("rlaif/all_tests_passed", "rlaif/policy_failures", "rlaif/unscored")
"""Shares of the batch, in [0, 1]. Always all of them: TRL gathers each by its name, so every rank has to log the same ones."""


class CodeReward:
    """`reward_funcs=[CodeReward(...)]`. The settings are `Scorer`'s.

    TRL runs its reward functions one after the other, so the batch is scored inside: all of its programs at once in the sandbox, then all of
    its judgements at once. Completions may be strings or lists of messages.
    """

    __name__ = "rlaif"
    """What TRL calls the reward in its logs."""

    def __init__(self, config: RewardConfig | None = None, *, scorer: Scorer | None = None, **settings: Any) -> None:
        self.scorer = scorer or Scorer(config, lanes=1, **settings)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any] | None = None,
        *,
        problem: Sequence[str] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards in [0, 1], one a completion; None where nobody could say: TRL leaves that sample out of its baseline and its update.

        problem: the data set's column of that name. Raises UsageError if it is missing, ProblemFileError if it is not what we exported.
        """
        if problem is None:
            raise UsageError(
                "The data set has no column 'problem'", f"it has {', '.join(sorted(columns))}", "rlaif problems export --format trl --out train.jsonl"
            )
        found = self.scorer.score([_problem(text) for text in problem], [code_of_reply(text_of(completion)) for completion in completions])
        unscored = [feedback for feedback in found if feedback.reward is None]
        if unscored:
            log.warning("%d of %d completions have no reward: %s", len(unscored), len(found), "; ".join(unscored[0].reasons))
        if log_metric is not None and found:
            for name, value in zip(METRICS, _shares(found), strict=True):
                log_metric(name, value)
        if log_extra is not None:
            log_extra("outcome", [feedback.outcome for feedback in found])
            log_extra("reason", [feedback.reasons[0] if feedback.reasons else "" for feedback in found])
        return [feedback.reward for feedback in found]

    def close(self) -> None:
        """Stop the sandbox."""
        self.scorer.close()


def _shares(found: Sequence[Feedback]) -> tuple[float, float, float]:
    passed = sum(feedback.tests is not None and feedback.tests.all_passed for feedback in found)
    failed = sum(feedback.outcome == "policy_failure" for feedback in found)
    return passed / len(found), failed / len(found), sum(feedback.reward is None for feedback in found) / len(found)


_problem = lru_cache(maxsize=1024)(problem_of_row)
"""Each problem comes back with every completion of its group, epoch after epoch."""
