"""From settings to a judge. torch is loaded only when a judge that needs it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.config import JudgeConfig, load_toml, parse_settings
from rlaif.errors import UsageError
from rlaif.judge.constitution import load_constitution
from rlaif.judge.protocol import Judge


def make_judge(config: JudgeConfig, *, policy: Any = None, cache_dir: Path | None = None, secret: bytes | None = None) -> Judge | None:
    """The judge that `config` asks for, or None for kind `none`.

    policy: the training Policy, whose base weights the embedded judge shares where it can. cache_dir: where the API judge keeps paid
    answers when the settings name no file. secret: the run's key for delimiters; a fresh one without it.
    Raises JudgeUnavailable (no such model, no server named) and UsageError (a setting that is missing or wrong).
    """
    if config.ensemble:
        from rlaif.judge.ensemble import EnsembleJudge

        alone = config.model_copy(update={"ensemble": ()})
        all_settings = [alone, *(parse_settings(JudgeConfig, load_toml(path), str(path)) for path in config.ensemble)]
        made = (make_judge(settings, policy=policy, cache_dir=cache_dir, secret=secret) for settings in all_settings)
        return EnsembleJudge([judge for judge in made if judge is not None], config.ensemble_rule)
    constitution = load_constitution(config.constitution)
    match config.kind:
        case "none":
            return None
        case "embedded":
            from rlaif.judge.embedded import load_embedded_judge

            return load_embedded_judge(config, constitution, policy=policy, secret=secret)
        case "local":
            if config.model is None and config.adapter is None:
                raise UsageError("The local judge needs a model", "", "--judge.model NAME (a folder or a Hub name)")
            from rlaif.judge.embedded import load_local_judge

            return load_local_judge(config, constitution, secret=secret)
        case "reward_model":
            if config.model is None:
                raise UsageError("The reward-model judge needs its folder", "", "--judge.model FOLDER, as written by `rlaif prefer reward-model`")
            from rlaif.judge.reward_model import load_reward_judge

            return load_reward_judge(config)
        case "api":
            if config.model is None:
                raise UsageError(
                    "The API judge needs the model's name on the server", "", "--judge.model NAME, and --judge.base_url URL for a server of your own"
                )
            from rlaif.judge.api import ApiJudge

            cache = config.cache or (cache_dir / "judge.sqlite" if cache_dir else None)
            return ApiJudge(config, constitution, cache_path=cache, secret=secret)
