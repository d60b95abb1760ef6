"""verifiers 0.4: a task set of our problems whose reward is ours, and the reward alone for task sets of your own.

verifiers finds a task set by the name of a module, so an environment is a file of two lines on the path (`recipes/interop/rlaif_env.py`):

    from rlaif.integrations.verifiers import CodeTaskset
    __all__ = ["CodeTaskset"]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import verifiers.v1 as vf
from pydantic import Field

from rlaif.errors import ProblemFileError
from rlaif.integrations.replies import code_of_reply
from rlaif.integrations.scorer import problem_of_row, reward_or_raise, shared_scorer
from rlaif.problems import load_problems
from rlaif.problems.export import export_row
from rlaif.problems.load import read_objects


class CodeTaskData(vf.TaskData):
    """One problem. `answer` is the problem as `rlaif problems export` writes it, graded tests included."""

    answer: str


class CodeTaskConfig(vf.TaskConfig):
    """How replies are scored: `Scorer`'s settings (`--env.taskset.task.feedback execution`)."""

    feedback: Literal["hybrid", "execution", "ai"] = "hybrid"
    judge: dict[str, Any] = Field(default_factory=dict)
    sandbox: dict[str, Any] = Field(default_factory=dict)


class CodeTask(vf.Task[CodeTaskData, vf.State, CodeTaskConfig]):
    """Asks for a program and scores the last reply."""

    @vf.reward(weight=1.0)
    async def rlaif(self, trace: vf.Trace) -> float:
        """In [0, 1]. Raises RewardUnavailable if the sandbox or the judge could not answer: verifiers records an error and no reward."""
        settings = {"feedback": self.config.feedback, "judge": self.config.judge, "sandbox": self.config.sandbox}
        return await score_reply(self.data.answer, trace, **settings)


class CodeTasksetConfig(vf.TasksetConfig):
    """Which problems (`--env.taskset.problems`)."""

    problems: str = "builtin"
    """`builtin`, a data set's name, a problem file, or what `rlaif problems export --format verifiers` wrote."""
    split: Literal["train", "validation", "test"] = "train"
    """Of problems that are not exported yet."""
    task: CodeTaskConfig = CodeTaskConfig()


class CodeTaskset(vf.Taskset[CodeTask, CodeTasksetConfig]):
    """Our problems as verifiers' tasks."""

    def load(self) -> Iterable[CodeTask]:
        """One task a problem, in the set's order. Raises ProblemFileError or UsageError."""
        for row in _rows(self.config.problems, self.config.split):
            system, user = row["prompt"]
            data = CodeTaskData(id=row["info"]["problem_id"], system_prompt=system["content"], prompt=user["content"], answer=row["answer"])
            yield CodeTask(data, self.config.task)


async def score_reply(answer: str, trace: vf.Trace, **settings: Any) -> float:
    """The reward of a trace's last reply, with what lies behind it as metrics: for a `@vf.reward` of your own.

    answer: an exported row's `answer`. Raises RewardUnavailable, or ProblemFileError for an answer that we did not write.
    """
    feedback = await shared_scorer(settings).ascore(_problem(answer), code_of_reply(trace.last_reply))
    reward = reward_or_raise(feedback)
    tests = feedback.tests
    trace.record_metric("all_tests_passed", float(tests is not None and tests.all_passed))
    trace.record_metric("policy_failure", float(feedback.outcome == "policy_failure"))
    return reward


def _rows(name: str, split: Literal["train", "validation", "test"]) -> Iterator[dict[str, Any]]:
    if Path(name).suffix == ".jsonl" and Path(name).exists():
        objects = read_objects(Path(name))
        first = next(objects, None)
        if first is not None and isinstance(first[1], dict) and "answer" in first[1]:
            for line, row in (first, *objects):
                if not isinstance(row, dict) or not {"prompt", "answer", "info"} <= row.keys() or len(row["prompt"]) != 2:
                    raise ProblemFileError(name, line, None, "it is no exported row", "rlaif problems export --format verifiers")
                yield row
            return
    for problem in load_problems(name, split=split):
        yield export_row(problem, "verifiers")


_problem = lru_cache(maxsize=1024)(problem_of_row)
