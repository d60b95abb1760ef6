"""OpenRLHF 0.11's remote reward: what its client posts, read; and the answer it understands. `rlaif serve` speaks this at /get_reward.

The client posts `{"query": [prompt + response], "prompts": [...], "labels": [...]}`, one sample a request, waits 180 s and tries 5 times; it
takes `{"rewards": [x], "scores": [x], "extra_logs": {name: [x]}}`. Labels are what `rlaif problems export --format openrlhf` wrote.

Without a server, on one machine: `--reward.remote_url` also takes a Python file with `reward_func`, and this file is one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.config import load_toml
from rlaif.errors import ProblemFileError, UsageError
from rlaif.integrations.replies import code_of_reply, without_prompt
from rlaif.integrations.scorer import problem_of_row, reward_or_raise, shared_scorer
from rlaif.types import Feedback, Problem

Answer = dict[str, Any]
CONFIG_VARIABLE = "RLAIF_REWARD_CONFIG"


def samples(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> list[tuple[Problem, str]]:
    """(problem, code) of each sample. Raises UsageError that names the sample and what is wrong with it."""
    if not len(queries) == len(prompts) == len(labels):
        raise UsageError("query, prompts and labels differ in length", f"{len(queries)}, {len(prompts)} and {len(labels)}", "one of each a sample")
    found: list[tuple[Problem, str]] = []
    for place, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        response = without_prompt(query, prompt)
        if response is None:
            raise UsageError(f"query[{place}] does not contain prompts[{place}]", "so it cannot be told where the response begins")
        try:
            found.append((problem_of_row(label), code_of_reply(response)))
        except ProblemFileError as error:
            why = f"{error.field}: {error.why}" if error.field else error.why
            raise UsageError(f"labels[{place}] is no problem", why, "rlaif problems export --format openrlhf, and --data.label_key label") from None
    return found


def answer(found: Sequence[Feedback]) -> Answer:
    """The body of the response, with the same keys always. Raises RewardUnavailable if any sample has no reward, UsageError for a bad row."""
    rewards = [reward_or_raise(feedback) for feedback in found]
    passed = [float(feedback.tests is not None and feedback.tests.all_passed) for feedback in found]
    failures = [float(feedback.outcome == "policy_failure") for feedback in found]
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"all_tests_passed": passed, "policy_failure": failures}}


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> Answer:
    """OpenRLHF's function form; settings from the TOML file that RLAIF_REWARD_CONFIG names. Raises, and OpenRLHF has no reward for the sample."""
    config = os.environ.get(CONFIG_VARIABLE)
    scorer = shared_scorer(load_toml(Path(config)) if config else {})
    futures = [scorer.submit(problem, code) for problem, code in samples(queries, prompts, labels)]
    return answer([future.result() for future in futures])
