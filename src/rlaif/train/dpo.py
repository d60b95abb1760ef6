"""`rlaif prefer dpo`: offline DPO (arXiv 2305.18290) on collected pairs, through TRL's DPOTrainer, measured by our harness before and after.

TRL trains; the run directory, Ctrl-C, resuming and the held-out evaluation are ours. (Online DPO, on the policy's own fresh samples, is
`rlaif train --algo online_dpo`.)
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlaif import __version__
from rlaif.errors import EnvironmentFailure, UsageError
from rlaif.policy.memory import give_back_memory
from rlaif.policy.model import Policy, load_policy
from rlaif.policy.sampler import context_length
from rlaif.problems.prompting import apply_chat_template
from rlaif.runs import Console
from rlaif.sandbox import Sandbox
from rlaif.train.prefer_config import DpoConfig
from rlaif.train.prefer_run import Lift, Open, evaluate_once, held_out_of, lift_of, open_run, save_whole
from rlaif.train.preference_data import Pair, preference_file, read_pairs

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "preference_accuracy",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
}
"""TRL's names and ours."""


@dataclass(frozen=True, slots=True)
class DpoResult:
    """The run, its held-out results, and the pairs that were trained on."""

    path: Path
    lift: Lift
    pairs: int
    left_out: int


def train_dpo(config: DpoConfig, *, console: Console | None = None) -> DpoResult:
    """Train on the pairs and evaluate before and after.

    Raises EnvironmentFailure where TRL is not installed, UsageError, ProblemFileError, or Interrupted with a checkpoint written.
    """
    require_trl()
    file = preference_file(config.preferences, "rlaif prefer dpo")
    everything = read_pairs(file, config.max_pairs)
    pairs = [pair for pair in everything if pair.label_probability >= config.min_probability]
    if not pairs:
        why = f"all {len(everything)} labels are less sure than {config.min_probability}"
        raise UsageError(f"No pair of {file} is sure enough", why, "--min-probability 0.5, or `rlaif prefer collect` with more --rounds")
    held_out = held_out_of(config)
    with ExitStack() as stack:
        opened = stack.enter_context(open_run(config, console, "step"))
        config = opened.config
        sandbox = stack.enter_context(Sandbox(config.sandbox))
        torch.manual_seed(config.seed)
        policy = load_policy(config.model, dtype=config.dtype, device=config.device)
        if policy.is_encoder_decoder:
            raise UsageError(f"TRL's DPOTrainer cannot train {config.model}", "it is no causal language model", "another --model")
        opened.run.write_env(sandbox=sandbox.describe(), device=str(policy.device), compute_dtype=str(policy.compute_dtype), seed=config.seed)
        unsure = len(everything) - len(pairs)
        pairs = fitting(policy, pairs, config)
        left_out = len(everything) - len(pairs)
        opened.console.message(
            f"DPO on {len(pairs)} pairs (left out: {unsure} with labels less sure than {config.min_probability}, {left_out - unsure} too long)."
        )
        evaluate_once("before", opened, lambda: policy, held_out, sandbox)
        if not (opened.run.model_path / "config.json").exists():
            _fit(opened, policy, pairs)
            save_whole(policy, opened.run)
            _card(opened, len(pairs))
        opened.run.publish_model()
        opened.done = opened.total
        del policy
        give_back_memory()
        evaluate_once("after", opened, lambda: _saved(opened), held_out, sandbox)
        result = DpoResult(opened.run.path, lift_of(opened), len(pairs), left_out)
        opened.run.write_json("summary.json", {"pairs": len(pairs), "left_out": left_out, "steps": opened.total})
        return result


def require_trl() -> None:
    """Raises EnvironmentFailure with the install line where TRL or datasets is missing."""
    missing = [name for name in ("trl", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentFailure(f"`rlaif prefer dpo` needs {' and '.join(missing)}", "it is an optional part", "pip install 'rlaif[trl]'")


def fitting(policy: Policy, pairs: Sequence[Pair], config: DpoConfig) -> list[Pair]:
    """The pairs whose prompt leaves room for an answer. Raises UsageError if there is none, or the model cannot read their format."""
    chat = bool(getattr(policy.tokenizer, "chat_template", None))
    if not chat and any(not isinstance(pair.prompt, str) for pair in pairs):
        raise UsageError(
            f"{config.model} has no chat template, and the pairs are conversations",
            "",
            "pairs collected with this model: `rlaif prefer collect --model`",
        )
    longest = _max_length(policy, config)
    kept = []
    for pair in pairs:
        text = pair.prompt if isinstance(pair.prompt, str) else apply_chat_template(policy.tokenizer, pair.prompt)
        if len(policy.tokenizer(text, add_special_tokens=False).input_ids) < longest:
            kept.append(pair)
    if not kept:
        raise UsageError(f"No prompt of the pairs is shorter than {longest} tokens", "nothing of an answer would be left", "a larger --max-length")
    return kept


def _max_length(policy: Policy, config: DpoConfig) -> int:
    return min(config.max_length, context_length(policy) or config.max_length)


def _saved(opened: Open[DpoConfig]) -> Policy:
    """What was written, as anyone would load it."""
    return load_policy(opened.run.model_path, dtype=opened.config.dtype, device=opened.config.device, trainable=False)


def _fit(opened: Open[DpoConfig], policy: Policy, pairs: Sequence[Pair]) -> None:
    """Train `policy` in place; on Ctrl-C, TRL saves after the step in progress and KeyboardInterrupt follows."""
    from transformers import PrinterCallback

    config, run = opened.config, opened.run
    with quiet():
        trainer = build_trainer(policy, pairs, config, run.checkpoints_path)
        checkpoint = newest(run.checkpoints_path) if config.resume else None
        done = int(checkpoint.name.split("-")[1]) if checkpoint else 0
        run.truncate_to(done)
        opened.total = -(-len(pairs) // config.pairs_per_step) * config.epochs
        opened.finished(done)
        watcher = _watcher(opened)
        trainer.add_callback(watcher)
        trainer.remove_callback(PrinterCallback)  # the run's own lines say it
        with _stop_politely(watcher):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watcher.stop:
        saved = newest(run.checkpoints_path)
        opened.done = int(saved.name.split("-")[1]) if saved else 0
        raise KeyboardInterrupt
    policy.model = trainer.model.eval()
    del trainer


def build_trainer(policy: Policy, pairs: Sequence[Pair], config: DpoConfig, folder: Path) -> Any:
    """TRL's trainer over the policy's model. Reference log-probabilities are computed once, so that no second model stays in memory."""
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from trl import DPOConfig, DPOTrainer

    if config.pairs_per_step % min(config.micro_batch_pairs, config.pairs_per_step):
        raise UsageError("--pairs-per-step must be a multiple of --micro-batch-pairs", f"{config.pairs_per_step} and {config.micro_batch_pairs}")
    micro = min(config.micro_batch_pairs, config.pairs_per_step)
    arguments = DPOConfig(
        output_dir=str(folder),
        beta=config.beta,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.pairs_per_step // micro,
        learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm,
        max_length=_max_length(policy, config),
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=policy.compute_dtype == torch.bfloat16,
        use_cpu=policy.device.type == "cpu",
        precompute_ref_log_probs=True,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=1,
        seed=config.seed,
        data_seed=config.seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=policy.device.type == "cuda",
    )
    lora = None
    if config.lora_rank > 0:
        lora = LoraConfig(task_type=TaskType.CAUSAL_LM, r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    return DPOTrainer(model=policy.model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=policy.tokenizer, peft_config=lora)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a transformers trainer: `trainer_state.json` is the last thing written of one."""
    found = [path for path in folder.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name) and _whole(path)] if folder.is_dir() else []
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def _whole(path: Path) -> bool:
    try:
        json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _watcher(opened: Open[DpoConfig]) -> Any:
    """A callback: TRL's figures into `metrics.jsonl`, and a stop that saves first."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        stop = False

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
            figures = {ours: float(logs[theirs]) for theirs, ours in _LOGGED.items() if theirs in (logs or {})}
            if "loss" in figures:
                opened.run.log_metrics({"episode": state.global_step, **figures})
                if state.global_step % max(1, state.max_steps // 20) == 0 or state.global_step == state.max_steps:
                    accuracy = figures.get("preference_accuracy", float("nan"))
                    opened.console.message(f"Step {state.global_step}/{state.max_steps}: loss {figures['loss']:.3f}, accuracy {accuracy:.0%}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if self.stop:
                control.should_save = control.should_training_stop = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            opened.finished(state.global_step)

    return Watcher()


@contextlib.contextmanager
def _stop_politely(watcher: Any) -> Iterator[None]:
    """While TRL trains, Ctrl-C and SIGTERM ask it to stop after the step; a second one stops at once."""
    import signal

    def handle(number: int, frame: Any) -> None:
        if watcher.stop:
            raise KeyboardInterrupt
        watcher.stop = True

    previous: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # off the main thread Python allows no handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice of libraries' in a run's story; their errors still come."""
    import datasets
    from transformers.utils import logging

    before, bars, tqdm = logging.get_verbosity(), datasets.are_progress_bars_disabled(), os.environ.get("TQDM_DISABLE")
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of TRL's about transformers
            yield
    finally:
        logging.set_verbosity(before)
        os.environ.pop("TQDM_DISABLE")
        if tqdm is not None:
            os.environ["TQDM_DISABLE"] = tqdm
        if not bars:
            datasets.enable_progress_bars()


def _card(opened: Open[DpoConfig], pairs: int) -> None:
    config = opened.config
    lines = ["---", f"base_model: {config.model}", "tags: [rlaif, dpo, code]", "---", "", f"# {Path(config.model).name} after DPO", ""]
    lines += [f"Trained with rlaif {__version__} through TRL's DPOTrainer on {pairs} preference pairs (beta {config.beta}, {config.epochs} passes)."]
    lines += ["", "Load it with `AutoModelForCausalLM.from_pretrained`. The code this model writes can be wrong or unsafe: run it in a sandbox.", ""]
    (opened.run.model_path / "README.md").write_text("\n".join(lines), encoding="utf-8")
