"""RLAIF, read from top to bottom: sample → feedback → advantage → loss → step → log → now and then evaluate and save.

`train` is the whole of it. Setting up is in setup.py, sampling and grading in rollout.py, the gradient in update.py, safety in checkpoint.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlaif.algos.recipes import recipe_for
from rlaif.config import TrainConfig
from rlaif.errors import Interrupted, RunFailed, UsageError
from rlaif.evals import Comparison, EvalResult, compare
from rlaif.judge.probes import Probes
from rlaif.policy.memory import give_back_memory, peak_memory_bytes
from rlaif.policy.model import Policy
from rlaif.problems.curriculum import Curriculum
from rlaif.rewards.engine import RewardEngine
from rlaif.runs import Console, RunDir, open_tracker
from rlaif.sandbox import Sandbox
from rlaif.train.card import constitution_of, write_model_card
from rlaif.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint, trainable_tensors
from rlaif.train.distributed import join, leave, world
from rlaif.train.drift import Drift
from rlaif.train.dry_run import describe
from rlaif.train.held_out import evaluate_held_out
from rlaif.train.interrupts import InterruptGuard
from rlaif.train.journal import FeedbackJournal
from rlaif.train.measure import by_problem, episode_metrics, judged, solved, spent_usd
from rlaif.train.monitor import Monitor
from rlaif.train.resume import resumed_config
from rlaif.train.rollout import Batch, collect
from rlaif.train.setup import Hooks, ProblemSets, build_curriculum, build_engine, build_judge, build_policy, choose_problems
from rlaif.train.update import build_optimizer, set_learning_rate, update
from rlaif.train.warm_start import warm_start


@dataclass(slots=True)
class TrainResult:
    """Where the run is and what it changed; `lift` compares after with before, `rl_lift` with the state after the warm start."""

    path: Path | None
    episodes: int
    evaluations: dict[str, EvalResult] = field(default_factory=dict)
    lift: Comparison | None = None
    rl_lift: Comparison | None = None
    description: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Session:
    """A run in progress: what changes from episode to episode, and what it is done with."""

    config: TrainConfig
    run: RunDir
    console: Console
    policy: Policy
    sandbox: Sandbox
    engine: RewardEngine
    problems: ProblemSets
    optimizer: torch.optim.Optimizer
    curriculum: Curriculum
    monitor: Monitor
    journal: FeedbackJournal
    guard: InterruptGuard
    generator: torch.Generator
    probes: Probes | None = None
    last_saved: int = -1
    drift: Drift | None = None
    spent_s: dict[str, float] = field(default_factory=lambda: {"eval_s": 0.0, "save_s": 0.0})
    """Seconds of evaluating and saving since the last row of metrics: they stand in the next one, and the last ones in end.json."""

    def state(self) -> dict[str, Any]:
        """Everything but tensors that the next episode depends on; JSON."""
        return {
            "generator": self.generator.get_state().tolist(),
            "curriculum": self.curriculum.state_dict(),
            "monitor": self.monitor.state_dict(),
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        return trainable_tensors(self.policy.model, self.policy.value_head)

    def save(self, episode: int, state: dict[str, Any]) -> None:
        with self.timed("save_s"):
            if world().main or self.policy.shards is not None:
                path, keep = self.run.checkpoints_path, self.config.keep_checkpoints
                save_checkpoint(path, episode, self.tensors(), self.optimizer, state, keep=keep, write=world().main)
        self.journal.trim(episode)
        self.last_saved = episode

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent_s[name] += time.perf_counter() - start

    def take_spent(self) -> dict[str, float]:
        """Those seconds, which then count no more."""
        spent, self.spent_s = self.spent_s, dict.fromkeys(self.spent_s, 0.0)
        return spent

    def evaluate(self, name: str) -> EvalResult:
        """Held-out problems, stored under `name`."""
        with self.timed("eval_s"):
            result = evaluate_held_out(name, self.config, self.policy, self.problems.held_out, self.sandbox, self.run, self.console)
        give_back_memory(if_scarce=True)
        return result

    def restore(self, path: Path) -> int:
        """Go back to a checkpoint; returns its episode."""
        state = load_checkpoint(path, self.tensors(), self.optimizer)
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))
        self.curriculum.load_state_dict(state["curriculum"])
        self.monitor.load_state_dict(state["monitor"])
        self.last_saved = state["episode"]
        return state["episode"]


def train(config: TrainConfig, *, hooks: Hooks | None = None, console: Console | None = None) -> TrainResult:
    """Run, or resume, one training run and return what it changed.

    Raises UsageError, EnvironmentFailure, RunFailed, or Interrupted (with a checkpoint written) as `rlaif.errors` describes them.
    """
    hooks, console = hooks or Hooks(), console or Console()
    with ExitStack() as stack:
        if config.dry_run:
            if config.resume and config.output_dir is not None:  # what would go on is that run, with its settings
                config = resumed_config(config, RunDir.open(config.output_dir))
            sandbox = stack.enter_context(Sandbox(config.sandbox))
            return TrainResult(None, 0, description=describe(config, choose_problems(config, hooks), sandbox, console))
        config, hooks, console = join(config, hooks, console)
        if config.resume:
            run = _open_run(config)
            stack.callback(run.close)
            config = resumed_config(config, run)
            problems = choose_problems(config, hooks)
        else:  # nothing is made or deleted before the problems were found good
            problems = choose_problems(config, hooks)
            run = _open_run(config)
            stack.callback(run.close)
        sandbox = stack.enter_context(Sandbox(config.sandbox))
        stack.enter_context(console)
        session = _start(config, hooks, console, run, sandbox, problems)
        stack.enter_context(session.guard)
        tracker = open_tracker(config.track, run.path, config.model_dump(mode="json"))
        if tracker is not None:
            stack.callback(tracker.close)
        try:
            done = _prepare(session)
            world().same(session.tensors().values())
            state = session.state()
            try:
                for episode in range(done + 1, config.episodes + 1):
                    metrics = run_episode(session, episode)
                    done, state = episode, session.state()
                    if tracker is not None:
                        tracker.log(metrics, episode)
                    if episode % config.save_every == 0 or episode == config.episodes:
                        session.save(episode, state)
                    if config.eval_every and episode % config.eval_every == 0 and episode < config.episodes:
                        session.evaluate(f"episode-{episode:04d}")
                    run.write_status("running", episode, config.episodes)
                    if hooks.after_episode:
                        hooks.after_episode(run.path)
            except KeyboardInterrupt:
                if session.last_saved != done:  # weights and logs are those of the last finished episode: see run_episode
                    session.save(done, state)
                raise
            result = _finish(session, hooks)
            leave()
            return result
        except KeyboardInterrupt:
            run.write_status("interrupted", max(session.last_saved, 0), config.episodes)
            raise Interrupted(
                "Interrupted",
                f"Everything up to episode {max(session.last_saved, 0)} is saved in {run.path}",
                f"the same command with --output_dir {run.path} --resume",
            ) from None
        except torch.OutOfMemoryError as error:
            run.write_status("failed", max(session.last_saved, 0), config.episodes, "out of memory")
            raise RunFailed(
                "Out of memory", str(error).splitlines()[0], "--micro_batch_tokens, --gradient_checkpointing or --lora_rank 16"
            ) from error
        except Exception as error:
            run.write_status(
                "failed", max(session.last_saved, 0), config.episodes, str(error).splitlines()[0] if str(error) else type(error).__name__
            )
            raise


def run_episode(session: Session, episode: int) -> dict[str, float]:
    """One episode: sample, get feedback, update, log. The heart of the matter."""
    config, console = session.config, session.console
    start, paid = time.perf_counter(), spent_usd(session.engine.judge)
    problems = session.curriculum.draw(config.batch_size)

    console.stage("sampling and grading")
    batch = collect(session.policy, problems, session.engine, session.sandbox, session.journal, config, episode, session.generator)

    probed = session.probes.maybe(episode, problems) if session.probes else None

    console.stage("updating the policy")
    give_back_memory(if_scarce=True)
    if session.drift is None:
        session.drift = Drift.load(session.run.path) if episode > 1 else Drift.begin(session.policy, batch, config)
    with session.guard.protected():  # from the first changed weight to the last log line, an episode happens whole or not at all
        recipe = recipe_for(config.algo, clip=config.clip, clip_high=config.clip_high)
        set_learning_rate(session.optimizer, config, episode)
        update_metrics = update(session.policy, session.optimizer, batch, recipe, config, session.generator)
        for problem, group in zip(problems, by_problem(batch, config.group_size), strict=True):
            scored = [rollout for rollout in group if rollout.feedback.reward is not None]
            session.curriculum.update(problem.id, sum(solved(rollout) for rollout in scored), len(scored))
        metrics = {"episode": episode} | episode_metrics(batch, session.engine.judge) | update_metrics
        metrics |= probed.metrics() if probed else {}
        if session.drift is not None:
            metrics["start_kl"] = session.drift.measure(session.policy, config)
        if paid is not None:
            metrics["judge_spend_usd"] = spent_usd(session.engine.judge) - paid
        metrics |= session.take_spent() | {"peak_memory_bytes": peak_memory_bytes(), "episode_s": time.perf_counter() - start}
        alarms = session.monitor.observe(episode, judged(batch), metrics)
        if episode == 1 and session.drift is not None:
            session.drift.save(session.run.path)
        session.run.log_rollouts(batch.rollouts)
        session.run.log_metrics(metrics)
    give_back_memory(if_scarce=True)
    _show(console, episode, config.episodes, metrics, batch)
    for alarm in alarms:
        session.run.log_alarm(alarm.episode, alarm.kind, alarm.message, best_episode=alarm.best_episode)
        console.warning(alarm.advice)
        if alarm.serious and config.stop_on_alarm:
            session.save(episode, session.state())
            raise RunFailed(
                f"Stopped at episode {episode}: {alarm.kind.replace('_', ' ')}",
                alarm.message,
                f"the checkpoint nearest to episode {alarm.best_episode} in {session.run.checkpoints_path}, or --feedback hybrid",
            )
    return metrics


def _show(console: Console, episode: int, episodes: int, metrics: dict[str, float], batch: Batch) -> None:
    scored = sorted((rollout for rollout in batch.rollouts if rollout.feedback.reward is not None), key=lambda rollout: rollout.feedback.reward)
    console.episode(episode, episodes, metrics, best=scored[-1] if scored else None, worst=scored[0] if scored else None)


# -- the ends of a run ---------------------------------------------------------------------------------------------------------------


def _open_run(config: TrainConfig) -> RunDir:
    if config.resume:
        if config.output_dir is None:
            raise UsageError("--resume needs the run to go on with", "", "--resume --output_dir runs/<the run>")
        return RunDir.resume(config.output_dir)
    return RunDir.create(config.output_dir, overwrite=config.overwrite)


def _start(config: TrainConfig, hooks: Hooks, console: Console, run: RunDir, sandbox: Sandbox, problems: ProblemSets) -> Session:
    policy = build_policy(config, value_head=recipe_for(config.algo).critic, sharded=world().sharded)
    # `auto` is measured at start, and a resumed run may meet a busier machine: what was found stays with the run
    config = config.model_copy(update={"dtype": str(policy.compute_dtype).removeprefix("torch.")})
    judge = build_judge(config, policy, run.path)
    run.write_config(config, quality_hash=hooks.quality_hash, **hooks.extra_config)
    run.write_env(
        sandbox=sandbox.describe(),
        device=str(policy.device),
        compute_dtype=str(policy.compute_dtype),
        threads=torch.get_num_threads(),
        seed=config.seed,
    )
    run.write_json("overlap.json", problems.overlap.to_dict() | {"dropped": problems.dropped})
    console.start(
        config,
        run.path,
        {
            "sandbox": sandbox.grade,
            "judge": judge.name if judge else "none",
            "device": f"{policy.device}, {str(policy.compute_dtype).removeprefix('torch.')}",
            "train on": problems.in_words(),
            "held out": f"{len(problems.held_out)} problems",
        },
    )
    for line in problems.overlap_lines(config):
        console.message(line)
    return Session(
        config,
        run,
        console,
        policy,
        sandbox,
        build_engine(config, sandbox, judge, hooks),
        problems,
        build_optimizer(policy, config),
        build_curriculum(problems.train, config),
        Monitor(),
        FeedbackJournal(run.path / "journal.jsonl"),
        InterruptGuard(),
        torch.Generator().manual_seed(config.seed),
        Probes(judge, config.judge.probe_rate, config.seed) if judge and config.feedback != "execution" else None,
    )


def _prepare(session: Session) -> int:
    """Bring the run to where its next episode starts; returns the number of finished episodes."""
    config, run = session.config, session.run
    found = newest_checkpoint(run.checkpoints_path) if config.resume else None
    if found is not None:
        done = session.restore(found)
        run.truncate_to(done)
        session.console.message(f"Resumed after episode {done}.")
        return done
    run.truncate_to(0)
    if session.problems.held_out:
        session.evaluate("before")
    if config.sft_steps:
        session.console.message(f"Warm start: {config.sft_steps} supervised steps on reference solutions.")
        learnt = warm_start(
            session.policy,
            session.problems.taught,
            config,
            session.generator,
            lambda step, loss: session.console.stage(f"warm start, loss {loss:.2f}", step, config.sft_steps),
        )
        session.console.message(f"  {learnt} reference solutions, {config.sft_steps} steps.")
        if session.problems.held_out:
            session.evaluate("after_sft")
    session.save(0, session.state())
    run.write_status("running", 0, config.episodes)
    return 0


def _finish(session: Session, hooks: Hooks) -> TrainResult:
    """Evaluate, save the model, and say what changed."""
    config, run, console = session.config, session.run, session.console
    if session.problems.held_out:
        session.evaluate("after")
    console.stage("saving the model")
    with session.timed("save_s"):
        session.policy.save(run.model_path, write=world().main)
    if not world().main:
        return TrainResult(None, config.episodes)
    evaluations = {name: EvalResult.from_dict(data) for name, data in run.evaluations().items()}
    result = TrainResult(run.path, config.episodes, evaluations)
    if "before" in evaluations and "after" in evaluations:
        result.lift = compare(evaluations["before"], evaluations["after"])
        if "after_sft" in evaluations:
            result.rl_lift = compare(evaluations["after_sft"], evaluations["after"])
        run.write_json("lift.json", {"lift": result.lift.to_dict(), "rl_lift": result.rl_lift.to_dict() if result.rl_lift else None})
    judge = session.engine.judge
    write_model_card(run.model_path, config, evaluations, result.lift, judge.name if judge else "none", constitution_of(judge))
    run.publish_model()
    run.write_json("end.json", session.take_spent())
    run.write_status("done", config.episodes, config.episodes)
    if hooks.after_episode:
        hooks.after_episode(run.path)
    return result
