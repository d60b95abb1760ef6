"""The model card: what was trained, on what, by which feedback, and what it changed. README.md beside the weights."""

from __future__ import annotations

from pathlib import Path

from rlaif import __version__
from rlaif.config import TrainConfig
from rlaif.evals import Comparison, EvalResult
from rlaif.judge import Judge


def constitution_of(judge: Judge | None) -> list[str]:
    """The principles a judge was given, or none."""
    constitution = getattr(judge, "constitution", None)
    return [principle.principle for principle in constitution.principles] if constitution is not None else []


def write_model_card(
    folder: Path, config: TrainConfig, evaluations: dict[str, EvalResult], lift: Comparison | None, judge: str, constitution: list[str]
) -> Path:
    """Write `folder/README.md` and return it. Every figure comes from the run's own evaluations."""
    feedback = {"hybrid": "tests gate the judge", "execution": "tests alone", "ai": "the judge alone"}[config.feedback]
    lines = [
        "---",
        f"base_model: {config.model}",
        "tags: [rlaif, code, reinforcement-learning]",
        "---",
        "",
        f"# {Path(config.model).name} trained from AI feedback",
        "",
        f"Trained with rlaif {__version__}: {config.algo.upper()}, "
        f"{config.episodes} episodes of {config.batch_size} problems × {config.group_size} answers, "
        f"problems `{config.problems}`, feedback `{config.feedback}` ({feedback}), judge: {judge}.",
        "",
        "Load it with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`; this package is not needed.",
        "",
        "## Held-out problems",
        "",
    ]
    lines += [
        f"- {name.replace('_', ' ')}: {result.success} of {result.success.count} problems"
        for name, result in evaluations.items()
        if result.success is not None
    ]
    if lift is not None:
        lines += ["", *[line.strip() for line in lift.lines()[:1]]]
    lines += ["", "## What the judge was asked", "", *[f"- {principle}" for principle in constitution]] if constitution else []
    lines += ["", "The code this model writes can be wrong or unsafe: run it in a sandbox.", ""]
    path = folder / "README.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
