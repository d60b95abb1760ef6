"""The run directory: where a run goes, what is in it, and how it survives a crash.

    config.json        {"rlaif": {"format": 1, "config": the resolved settings}}; when a model is published into the folder itself, the keys
                       that Hugging Face needs stand beside "rlaif", so that one file serves both
    env.json           versions, machine, git state, sandbox grade, seeds
    status.json        running, done, failed or interrupted; episode i of N; when it was last heard of
    metrics.jsonl      one line an episode, every figure of `rlaif.runs.metrics`
    rollouts.jsonl     one line a completion: tests, judge, reasons, reward, advantage (`rlaif.runs.rows`)
    problems.jsonl     each problem once, named by id in the rollouts
    alarms.jsonl       what the monitor had to say
    overlap.json       what the training problems give away of the held-out ones
    drift.json         the completions on which the distance to the starting policy is measured
    end.json           seconds of evaluating and saving after the last episode (those before stand in metrics.jsonl)
    before.json        held-out evaluation before training; after_sft.json, after.json and episode-0010.json likewise
    checkpoints/ model/ report.html

All of it is JSON or JSON lines and can be read while the run goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rlaif.config import Settings
from rlaif.errors import RunFailed, UsageError
from rlaif.runs.environment import collect_environment
from rlaif.runs.files import append_lines, dumps, explained_os_errors, keep_lines, read_lines, write_json_atomic
from rlaif.runs.rows import Row, problem_from_row, problem_to_row, rollout_to_row
from rlaif.types import Problem, Rollout

State = Literal["running", "done", "failed", "interrupted"]
FORMAT = 1
_FOLDERS = ("checkpoints", "model", "reward_model", "tensorboard", "wandb")
_FILES = ("config.json", "env.json", "status.json", "report.html", "overlap.json", "lift.json", "end.json", "drift.json", "journal.jsonl", ".lock")
_FILES += ("judge.sqlite", "judge_cache.sqlite")
_FILES += ("preferences.jsonl", "revisions.jsonl", "summary.json", "split.json")  # what `rlaif prefer` writes
_LOGS = ("metrics.jsonl", "rollouts.jsonl", "alarms.jsonl")


class RunDir:
    """One run's folder. Made by `create` or `resume` (which hold its lock for writing) or `open` (reading only)."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.env_path = self.path / "env.json"
        self.status_path = self.path / "status.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.rollouts_path = self.path / "rollouts.jsonl"
        self.problems_path = self.path / "problems.jsonl"
        self.alarms_path = self.path / "alarms.jsonl"
        self.checkpoints_path = self.path / "checkpoints"
        self.model_path = self.path / "model"
        self.report_path = self.path / "report.html"
        self._known_problems: set[str] | None = None
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    # -- opening -------------------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path | None = None, *, overwrite: bool = False) -> RunDir:
        """A new run's folder, made and locked; `path` None means runs/<time>. An empty folder that exists is fine.

        Raises UsageError for a folder with something in it, unless `overwrite` is given and it holds a run: then what the run wrote is
        deleted, and any other file in there is left alone.
        """
        if path is None:
            path = _fresh_folder(Path("runs"))
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not a folder", "", "name another folder with --output_dir")
        run = cls(path)
        with explained_os_errors(path, "choose another --output_dir"):
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        if occupied and not is_run(path):
            why = "--overwrite only deletes what a run wrote, and this is not a run's folder." if overwrite else ""
            raise UsageError(f"The folder {path} exists and is not empty", why, "name another --output_dir, or empty that folder yourself")
        if occupied and not overwrite:
            hint = f"--resume to go on with it, --overwrite to delete it and start again, or another --output_dir (it is at {run.progress_text()})"
            raise UsageError(f"The folder {path} already holds a run", "", hint)
        run._acquire_lock()
        if occupied:
            run._delete_contents()
        # Written at once, so that a run killed in its first second can still be told from a stranger's folder.
        write_json_atomic(run.config_path, {"rlaif": {"format": FORMAT, "config": {}}})
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunDir:
        """An existing run, for reading. Raises UsageError where there is none."""
        path = Path(path)
        if not path.exists():
            raise UsageError(f"No run at {path}", "The folder does not exist.", "check the path; `ls runs` lists the runs made so far")
        if not is_run(path):
            raise UsageError(f"{path} is not a run's folder", "It has no config.json written by a run.", "give the folder that holds metrics.jsonl")
        return cls(path)

    @classmethod
    def resume(cls, path: Path | str) -> RunDir:
        """An existing run, locked for going on with it; lines torn by a crash are dropped. Raises UsageError as `open` does, or if it is running."""
        run = cls.open(path)
        run._acquire_lock()
        for name in (*_LOGS, "problems.jsonl"):
            keep_lines(run.path / name, lambda row: True)
        return run

    def close(self) -> None:
        """Give the lock back (the end of the process does it too)."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- writing -------------------------------------------------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> Path:
        """Any other JSON file of the run, atomically; returns its path."""
        write_json_atomic(self.path / name, value)
        return self.path / name

    def write_config(self, config: Settings | Mapping[str, Any], **extra: Any) -> None:
        """The resolved settings; `extra` (for example hashes of the learner's files) is kept beside them."""
        content = json.loads(dumps(config))
        extra |= {"published": published} if (published := self._published()) else {}
        write_json_atomic(self.config_path, {**self._config_file(), "rlaif": {"format": FORMAT, "config": content, **extra}})

    def write_env(self, **extra: Any) -> None:
        """Versions, machine and git state, plus what the caller knows: sandbox=..., seeds=..., device=..., threads=..."""
        write_json_atomic(self.env_path, {**collect_environment(), "started": _now(), **extra})

    def write_status(self, state: State, episode: int, episodes: int, message: str = "") -> None:
        """Where the run is. `updated` lets a reader tell a run that goes on from one that was killed."""
        write_json_atomic(
            self.status_path,
            {"state": state, "episode": episode, "episodes": episodes, "message": message, "updated": _now(), "pid": os.getpid()},
        )

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append one episode's figures; needs the key `episode` (1 is the first)."""
        append_lines(
            self.metrics_path, [{"episode": int(metrics["episode"]), "time": _now(), **{k: v for k, v in metrics.items() if k != "episode"}}]
        )

    def log_rollouts(self, rollouts: Iterable[Rollout]) -> None:
        """Append completions, and each problem the first time it is met. Call it before `log_metrics` of the same episode."""
        rollouts = list(rollouts)
        if self._known_problems is None:
            self._known_problems = {row["id"] for _, row in read_lines(self.problems_path)}
        fresh = {rollout.problem.id: rollout.problem for rollout in rollouts if rollout.problem.id not in self._known_problems}
        append_lines(self.problems_path, [problem_to_row(problem) for problem in fresh.values()])
        self._known_problems |= set(fresh)
        append_lines(self.rollouts_path, [rollout_to_row(rollout) for rollout in rollouts])

    def log_alarm(self, episode: int, kind: str, message: str, best_episode: int | None = None) -> None:
        """Something a person should look at: `kind` is a short name ("judge_drift"), `message` a sentence with what to do; `best_episode` is
        where the held-out pass rate was best, if the alarm makes one want to go back."""
        best = {} if best_episode is None else {"best_episode": best_episode}
        append_lines(self.alarms_path, [{"episode": episode, "kind": kind, "message": message, **best, "time": _now()}])

    def write_evaluation(self, name: str, result: Mapping[str, Any]) -> Path:
        """`name`: "before", "after_sft", "after", or "episode-0010" for one in between."""
        return self.write_json(f"{name}.json", result)

    def truncate_to(self, episode: int) -> int:
        """Drop all that was logged after `episode` (0: everything), so that a resumed run writes no line twice; returns how many lines went."""
        gone = sum(keep_lines(self.path / name, lambda row: row.get("episode", 0) <= episode) for name in _LOGS)
        for file in self.path.glob("episode-*.json"):
            if file.stem.removeprefix("episode-").isdigit() and int(file.stem.removeprefix("episode-")) > episode:
                file.unlink()
        for name in ("after.json", "end.json"):
            (self.path / name).unlink(missing_ok=True)
        return gone

    def publish_model(self) -> None:
        """Make the folder itself loadable as the model in `model/`: its files appear beside the run's by hard link (a copy where links are not
        to be had), and config.json gets Hugging Face's keys beside "rlaif". Call it after every save into `model/`."""
        model_config = json.loads((self.model_path / "config.json").read_text(encoding="utf-8"))
        earlier = set(self._published())
        files = [file for file in sorted(self.model_path.iterdir()) if file.is_file() and file.name != "config.json"]
        # A file of the same name that is not ours (someone's README.md) stays as it is.
        files = [file for file in files if file.name in earlier or not (self.path / file.name).exists()]
        names = {file.name for file in files}
        # Named before they are made: a crash in between must not leave files that the next call takes for someone else's.
        own = self._config_file().get("rlaif", {})
        write_json_atomic(self.config_path, {**self._config_file(), "rlaif": {**own, "published": sorted(earlier | names)}})
        with explained_os_errors(self.path):
            for file in files:
                _link_or_copy(file, self.path / file.name)
            for name in earlier - names:  # the shards of a model that had more of them
                (self.path / name).unlink(missing_ok=True)
        write_json_atomic(self.config_path, {**model_config, "rlaif": {**own, "published": sorted(names)}})

    # -- reading -------------------------------------------------------------------------------------------------------------------

    def read_config(self) -> dict[str, Any]:
        """The resolved settings, as `write_config` got them."""
        return self._config_file().get("rlaif", {}).get("config", {})

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run ("env.json", "status.json", "before.json"); empty if it is not there, not readable yet, or no object."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """The held-out evaluations there are, in the order in which they happened."""
        between = sorted(file.stem for file in self.path.glob("episode-*.json"))
        found = {name: self.read_json(f"{name}.json") for name in ("before", "after_sft", *between, "after")}
        return {name: result for name, result in found.items() if result}

    def iter_metrics(self) -> Iterator[Row]:
        for _, row in read_lines(self.metrics_path):
            yield row

    def iter_alarms(self) -> Iterator[Row]:
        for _, row in read_lines(self.alarms_path):
            yield row

    def iter_rollouts(self) -> Iterator[Row]:
        """Rows as stored; `rlaif.runs.rows.rollout_from_row(row, run.problems())` makes a Rollout of one."""
        for _, row in read_lines(self.rollouts_path):
            yield row

    def problems(self) -> dict[str, Problem]:
        """Every problem met so far, by id."""
        return {row["id"]: problem_from_row(row) for _, row in read_lines(self.problems_path)}

    def progress_text(self) -> str:
        """ "episode 7 of 20, interrupted", for messages."""
        status = self.read_json("status.json")
        return f"episode {status['episode']} of {status['episodes']}, {status['state']}" if status else "its very start"

    # -- own -----------------------------------------------------------------------------------------------------------------------

    def _config_file(self) -> dict[str, Any]:
        return self.read_json("config.json")

    def _published(self) -> list[str]:
        return self._config_file().get("rlaif", {}).get("published", [])

    def _acquire_lock(self) -> None:
        """One writer at a time. The lock dies with its process, so a killed run never blocks the next."""
        try:
            import fcntl
        except ImportError:  # Windows: go without
            return
        with explained_os_errors(self.path / ".lock"):
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(f"The run in {self.path} is going on in another process", "", "wait for it, or use another --output_dir") from None
        except OSError:  # a file system without locks
            os.close(handle)
            return
        self._lock = handle

    def _delete_contents(self) -> None:
        """What a run wrote, by name; a link is removed, not followed. config.json goes last: until then the folder is still known as a run."""
        names = [*self._published(), *_LOGS, "problems.jsonl", "before.json", "after_sft.json", "after.json"]
        names += [file.name for file in self.path.glob("episode-*.json")] + [file.name for file in self.path.glob(".*.tmp")]
        with explained_os_errors(self.path):
            for folder in _FOLDERS:
                target = self.path / folder
                if target.is_symlink() or target.is_file():
                    target.unlink()
                elif target.exists():
                    shutil.rmtree(target)
            for name in (*names, *(name for name in _FILES if name not in (".lock", "config.json")), "config.json"):
                with suppress(FileNotFoundError):
                    (self.path / Path(name).name).unlink()


def is_run(path: Path) -> bool:
    """Whether a run made this folder: its config.json says so."""
    try:
        content = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("rlaif"), dict)


def latest_run(root: Path = Path("runs"), *, with_model: bool = False) -> RunDir | None:
    """The run under `root` that was last heard of (with a saved model, if asked), or None."""
    if not root.is_dir():
        return None
    runs = [RunDir(path) for path in root.iterdir() if is_run(path) and (not with_model or (path / "model" / "config.json").exists())]
    return max(runs, key=_last_heard_of, default=None)


def _link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, at no cost in space where the file system has hard links."""
    if target.exists() and target.samefile(source):
        return
    beside = target.with_name(f".{target.name}.tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        shutil.copy2(source, beside)
    os.replace(beside, target)


def _last_heard_of(run: RunDir) -> tuple[float, str]:
    newest = max((file.stat().st_mtime for file in (run.status_path, run.metrics_path, run.config_path) if file.exists()), default=0.0)
    return newest, run.path.name


def _fresh_folder(root: Path) -> Path:
    """runs/20260131-235959, with a suffix if two runs start in the same second."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with explained_os_errors(root, "choose another --output_dir"):
        root.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
            with suppress(FileExistsError):
                (root / f"{stamp}{suffix}").mkdir()
                return root / f"{stamp}{suffix}"
    raise RunFailed(f"Cannot find a free name for a run under {root}", "", "name one with --output_dir")


def _now() -> str:
    """Local time with its offset, to the second, as ISO 8601."""
    return datetime.fromtimestamp(time.time()).astimezone().isoformat(timespec="seconds")
