"""AI feedback: how good is a solution, from 0 (bad) to 1 (excellent)?

The sandbox runs the tests, the AI judge reads the code, `_evaluate_code_quality` looks at its style, and one formula puts them
together: code that fails its tests stays below 0.3, code that passes them starts at 0.3, and good code that passes is 0.6 or more.
Edit `_evaluate_code_quality`: the next run uses your version.
"""

from collections.abc import Sequence

from rlaif.config import JudgeConfig, SandboxConfig
from rlaif.judge import make_judge
from rlaif.problems.learner import problem_from_call
from rlaif.rewards import RewardEngine, quality_reports
from rlaif.sandbox import Sandbox
from rlaif.types import Feedback


class AIRewardModel:
    """Scores solutions. `judge`: "embedded" (the default), "local", "api" or "none"."""

    def __init__(self, judge: str = "embedded", feedback: str = "hybrid") -> None:
        self.sandbox = Sandbox(SandboxConfig())
        self.engine = RewardEngine(self.sandbox, make_judge(JudgeConfig(kind=judge)), feedback, quality_hook=self._evaluate_code_quality)

    def evaluate_code_solution(self, prompt: str, solution: str, test_input: str, expected_output: str) -> float:
        """The reward of one solution, in [0, 1]. Raises RuntimeError if nobody could say (a broken sandbox is not a bad solution)."""
        return self._reward(self.feedback([prompt], [solution], [test_input], [expected_output])[0])

    def evaluate(self, prompts: Sequence[str], responses: Sequence[str], test_inputs: Sequence[str], expected_outputs: Sequence[str]) -> list[float]:
        """The rewards of a batch, in order."""
        return [self._reward(feedback) for feedback in self.feedback(prompts, responses, test_inputs, expected_outputs)]

    def feedback(
        self, prompts: Sequence[str], solutions: Sequence[str], test_inputs: Sequence[str], expected_outputs: Sequence[str]
    ) -> list[Feedback]:
        """Rewards with every reason for them: which test failed, what the judge said, what the linter found."""
        rows = zip(prompts, test_inputs, expected_outputs, strict=True)
        return self.engine.score([problem_from_call(*row) for row in rows], list(solutions))

    def _evaluate_code_quality(self, solution: str) -> float:
        """Style, from 0 to 1. This is yours to change: reward docstrings, punish long functions, whatever you want to see more of."""
        return quality_reports([solution])[0].score

    @staticmethod
    def _reward(feedback: Feedback) -> float:
        if feedback.reward is None:
            raise RuntimeError(f"This solution could not be scored: {'; '.join(feedback.reasons)}")
        return feedback.reward
