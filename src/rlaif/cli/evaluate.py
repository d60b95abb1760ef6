"""`rlaif evaluate`: pass@k of a model, or of completions that exist already, with intervals and per difficulty."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from rlaif.cli.flags import CommandLine, Parsed
from rlaif.config import EvalConfig
from rlaif.errors import RlaifError, UsageError
from rlaif.types import Completion, Problem, Split, TestReport


class EvaluateConfig(EvalConfig):
    """One evaluation, and what to compare it with."""

    completions: Path | None = None
    """Score this JSONL file ("task_id" and "completion" a line) instead of a model; no model is loaded."""
    baseline: tuple[str, ...] = ()
    """Evaluate these models too (A,B,...) in the same harness, and pair each with the first of them; `base`: the model that the run began with."""
    answers: Path | None = None
    """Write every answer of the model to this JSONL file, with what came of it."""
    fail_under: float | None = Field(None, ge=0, le=1)
    """Exit with code 4 if the success rate is below this share, such as 0.4."""


def command_line(prog: str = "rlaif evaluate") -> CommandLine[EvaluateConfig]:
    """The flags of `rlaif evaluate` and of `python evaluate.py`."""
    return CommandLine(
        prog,
        "How many held-out problems a model solves: pass@k with intervals, per difficulty.",
        f"{prog} --model_path smollm2-135m --limit 4",
        EvaluateConfig,
        switches={
            "json": "The result as JSON on stdout, prose on stderr.",
            "interactive": "Open the chat instead: type a task, see the code, run a test on it.",
        },
        details="Without --model_path the latest run under runs/ is evaluated, on its own held-out problems and with its own limits.",
    )


def run(argv: Sequence[str], prog: str = "rlaif evaluate") -> int:
    """Returns 0, or raises BelowThreshold after the result was printed; other RlaifErrors come before it."""
    if "--interactive" in argv:
        from rlaif.cli import chat

        return chat.run([word for word in argv if word != "--interactive"], prog=f"{prog} --interactive")
    parsed = command_line(prog).parse(argv)
    out: dict[str, Any]
    if parsed.settings.completions is not None:
        result, out, lines = _evaluate_completions(parsed)
    else:
        result, out, lines = _evaluate_model(parsed)
    print(json.dumps(out) if "json" in parsed.switches else "\n".join(lines))
    if parsed.settings.fail_under is not None:
        from rlaif.evals import fail_under

        sys.stdout.flush()
        fail_under(result, parsed.settings.fail_under)
    return 0


_FOR_A_MODEL = ("model_path", "baseline", "answers", "samples", "temperature", "max_new_tokens", "dtype", "device", "seed", "threads")


def _evaluate_completions(parsed: Parsed[EvaluateConfig]) -> tuple[Any, dict[str, Any], list[str]]:
    from rlaif.evals import score_completions
    from rlaif.sandbox import Sandbox

    config = parsed.settings
    assert config.completions is not None
    for name in _FOR_A_MODEL:
        if name in parsed.given:
            raise UsageError(f"--{name} is about a model", "--completions loads none: it scores what is in the file", "leave one of the two out")
    if "split" not in parsed.given:  # what a file holds is scored, whichever split it is about
        config = config.model_copy(update={"split": "all"})
    problems = held_out_problems(config)
    with Sandbox(config.sandbox) as sandbox:
        scores = score_completions(config.completions, problems, sandbox, config.k, name=config.problems, split=config.split)
    return scores.result, scores.to_dict(), scores.result.lines()


def _evaluate_model(parsed: Parsed[EvaluateConfig]) -> tuple[Any, dict[str, Any], list[str]]:
    from rlaif.cli.models import find_model
    from rlaif.evals import compare, compare_with_controls
    from rlaif.sandbox import Sandbox

    choice = find_model(parsed.settings.model_path)
    config = like_the_run(parsed, choice.run_config)
    problems = held_out_problems(config)
    controls = [_control(name, choice) for name in config.baseline]
    overlap = _overlap(choice.run_config, config, problems)
    with Sandbox(config.sandbox) as sandbox:
        result = evaluate_one(choice, config, problems, sandbox, answers=config.answers)
        others = [evaluate_one(control, config, problems, sandbox) for control in controls]
    out, lines = result.to_dict(), result.lines()
    if overlap is not None:
        out["overlap"] = overlap.to_dict()
        lines += ["", *overlap.lines()]
    if others:
        base, *rest = others
        comparison = compare(base, result)
        out |= {"baseline": base.to_dict(), "comparison": comparison.to_dict()}
        lines += ["", *base.lines(), "", *comparison.lines()]
        if rest:
            out["controls"] = compare_with_controls(base, {other.model: other for other in rest})
            lines += ["", f"Controls against {base.model}:", *(f"  {row['name']}: {row['words']}" for row in out["controls"])]
    return result, out, lines


def _overlap(run_config: dict[str, Any], config: EvalConfig, problems: list[Problem]) -> Any:
    """What the run trained on gives away of another set that it is evaluated on; None where that cannot be asked."""
    from rlaif.problems import load_problems
    from rlaif.problems.dedupe import overlap_report

    trained_on = [name for name in (run_config.get("problems"), run_config.get("practice_problems")) if name is not None]
    if trained_on in ([], [config.problems]):
        return None
    try:
        return overlap_report([problem for name in trained_on for problem in load_problems(name, split="train")], problems)
    except RlaifError as error:  # the file that it was trained on may be gone by now
        print(f"Overlap with {' and '.join(trained_on)} unknown: {error.what}", file=sys.stderr)
        return None


def like_the_run(parsed: Parsed[EvaluateConfig], run_config: dict[str, Any]) -> EvaluateConfig:
    """The settings with the run's own in place of defaults, so that the figures are those of the run's last evaluation."""
    config = parsed.settings
    own: dict[str, Any] = {
        "problems": run_config.get("eval_problems") or run_config.get("problems"),
        "limit": run_config.get("eval_limit"),
        "max_new_tokens": run_config.get("max_new_tokens"),
        "samples": run_config.get("eval_samples"),
        "temperature": run_config.get("eval_temperature") or run_config.get("temperature"),
        "seed": run_config.get("seed"),
    }
    if "problems" in parsed.given:
        del own["limit"]
    values = config.model_dump() | {name: value for name, value in own.items() if value is not None and name not in parsed.given}
    if "k" not in parsed.given:
        values["k"] = tuple(sorted({1, values["samples"]}))
    if max(values["k"]) > values["samples"]:  # before a model is loaded for nothing
        most = max(values["k"])
        raise UsageError(f"pass@{most} needs at least {most} samples a problem", f"samples is {values['samples']}", f"--samples {most}")
    return EvaluateConfig(**values)


def held_out_problems(config: EvalConfig) -> list[Problem]:
    """The problems to evaluate on. Raises UsageError for an unknown set, ProblemFileError for a bad file."""
    from rlaif.problems import load_problems

    split: Split | None = None if config.split == "all" else config.split
    return load_problems(config.problems, split=split, limit=config.limit)


def evaluate_one(choice: Any, config: EvalConfig, problems: list[Problem], sandbox: Any, answers: Path | None = None) -> Any:
    """Load one model and evaluate it; says on stderr what it is busy with. `answers`: a file for every answer and its fate."""
    import torch

    from rlaif.evals import evaluate
    from rlaif.policy.model import load_policy
    from rlaif.train.held_out import policy_generator

    if config.threads:
        torch.set_num_threads(config.threads)
    policy = load_policy(choice.source, dtype=config.dtype, device=config.device, trainable=False)
    many = f"{len(problems) * config.samples} answers"
    print(f"{choice.label}: writing {many} to {len(problems)} problems, at most {config.max_new_tokens} tokens each ...", file=sys.stderr, flush=True)
    with _answer_file(answers) as keep:
        return evaluate(policy_generator(policy, config), problems, sandbox, config, model=choice.label, on_report=keep)


@contextmanager
def _answer_file(path: Path | None) -> Iterator[Callable[[Problem, Completion, TestReport], None] | None]:
    """`evaluate`'s on_report that writes JSON lines which `--completions` reads again."""
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as stream:

        def keep(problem: Problem, completion: Completion, report: TestReport) -> None:
            row = {"task_id": problem.id, "completion": completion.code, "text": completion.text, "finish_reason": completion.finish_reason}
            first = next((result.error for result in report.results if result.error), None)
            row |= {"passed": report.all_passed, "outcome": report.outcome, "failure": report.failure, "error": report.message or first}
            stream.write(json.dumps(row) + "\n")

        yield keep


def _control(name: str, choice: Any) -> Any:
    from rlaif.cli.models import find_model

    if name != "base":
        return find_model(name)
    if choice.base is None:
        raise UsageError("--baseline base needs a run", f"{choice.label} is no run, so nobody knows what it began with", "--baseline MODEL")
    return find_model(choice.base)
