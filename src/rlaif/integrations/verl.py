"""verl 0.9: `reward.custom_reward_function.path=pkg://rlaif.integrations.verl`, `name=compute_score`.

The data set comes from `rlaif problems export --format verl --out train.parquet`; settings are `reward.custom_reward_function.reward_kwargs`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rlaif.integrations.replies import code_of_reply
from rlaif.integrations.scorer import problem_of_row, reward_or_raise, shared_scorer


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Any = None,
    *,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **settings: Any,
) -> dict[str, float]:
    """One sample. verl awaits many at once in each of its reward workers, and they are scored together.

    ground_truth: the row's `reward_model.ground_truth`, as exported. settings: `Scorer`'s; equal settings share one sandbox in a process.
    data_source, extra_info and the two of verl's own reward model are not used.
    Returns the same keys for every sample, as verl demands: `score` in [0, 1]; `acc`, 1.0 where all tests passed (verl's validation takes
    it for accuracy); `tests_passed`, the share of tests; `policy_failure`.
    Raises RewardUnavailable if the sandbox or the judge could not answer, so that no sample trains on a reward that means nothing.
    """
    feedback = await shared_scorer(settings).ascore(_problem(ground_truth), code_of_reply(solution_str))
    tests = feedback.tests
    return {
        "score": reward_or_raise(feedback),
        "acc": float(tests is not None and tests.all_passed),
        "tests_passed": tests.passed / tests.total if tests is not None and tests.total else 0.0,
        "policy_failure": float(feedback.outcome == "policy_failure"),
    }


_problem = lru_cache(maxsize=1024)(problem_of_row)
