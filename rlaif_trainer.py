"""The RLAIF loop in one class: generate code, get AI feedback, update the policy with PPO, repeat.

The engine is `rlaif.train.loop`, which reads from top to bottom; this class is its friendly face. The defaults below are those of
`python train.py`: change one here and the next run uses it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from reward_model import AIRewardModel
from rlaif.config import TrainConfig
from rlaif.learner import Learner, learner_hooks
from rlaif.runs import Console
from rlaif.train.loop import TrainResult, train
from rlaif.types import Problem


class RLAIFTrainer:
    """Trains `model_name` (a folder, a Hub name, or the embedded smollm2-135m) from AI feedback."""

    def __init__(self, model_name: str = "smollm2-135m", batch_size: int = 6, output_dir: str | None = None, **settings) -> None:
        self.config = TrainConfig(model=model_name, batch_size=batch_size, output_dir=Path(output_dir) if output_dir else None, **settings)
        self.reward_model = AIRewardModel
        self._learner: Learner | None = None

    def train(self, dataset: Sequence[Problem], num_episodes: int = 20, console: Console | None = None) -> TrainResult:
        """Sample, judge and update `num_episodes` times; afterwards this trainer holds the trained model."""
        config = self.config.model_copy(update={"episodes": num_episodes})
        result = train(config, hooks=learner_hooks(dataset, self.reward_model), console=console)
        if result.path is not None:
            self._learner = Learner(config.model_copy(update={"model": str(result.path / "model")}))
        return result

    @property
    def learner(self) -> Learner:
        """The policy in memory, loaded when first needed."""
        if self._learner is None:
            self._learner = Learner(self.config)
        return self._learner

    def step(self, prompts: Sequence[str], responses: Sequence[str], rewards: Sequence[float]) -> dict[str, float]:
        """One PPO update on answers that you have scored yourself; returns the update's metrics."""
        return self.learner.step(prompts, responses, rewards)

    def evaluate(self, dataset: Sequence[Problem]) -> dict:
        """The share of problems solved, with its interval, per difficulty."""
        return self.learner.evaluate(dataset)

    def generate_sample(self, prompt: str) -> str:
        """Code for a task in words."""
        return self.learner.generate_sample(prompt)

    def save_model(self, output_dir: str | None = None) -> str:
        """Write the model in Hugging Face format; returns the folder."""
        return self.learner.save(output_dir or tempfile.mkdtemp(prefix="rlaif-model-"))
