"""What the root scripts train.py and evaluate.py do with their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlaif.cli.guard import guarded
from rlaif.types import Problem


def learner_main(argv: Sequence[str], *, demo: Callable[[], None], trainer: Any, dataset: Callable[[], Sequence[Problem]]) -> int:
    """No arguments: the demo. Otherwise train, with the RLAIFTrainer's settings as defaults and the learner's own problems and reward."""

    def go(argv: Sequence[str]) -> int:
        if not [word for word in argv if word != "--debug"]:
            demo()
            return 0
        from rlaif.cli.flags import parse_train

        defaults = trainer.config.model_dump(exclude_unset=True)
        config = parse_train(argv, prog="python train.py", defaults=defaults)
        from rlaif.cli.train import run_training
        from rlaif.learner import learner_hooks

        run_training(config, learner_hooks(dataset(), trainer.reward_model))
        return 0

    return guarded(go, list(argv))


def evaluate_main(argv: Sequence[str]) -> int:
    """`--interactive` opens the chat; everything else is `rlaif evaluate`."""

    def go(argv: Sequence[str]) -> int:
        from rlaif.cli import evaluate

        return evaluate.run(argv, prog="python evaluate.py")

    return guarded(go, list(argv))
