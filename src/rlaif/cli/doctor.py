"""`rlaif doctor`: what this machine has, and what to do about what it lacks. Every check stands alone: one that fails hides no other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rlaif.cli.flags import CommandLine
from rlaif.cli.guard import explain
from rlaif.config import JudgeConfig, SandboxConfig, Settings
from rlaif.errors import EnvironmentFailure

State = Literal["ok", "note", "missing"]
REACH_TIMEOUT_S = 5.0


class DoctorConfig(Settings):
    """What to look at."""

    judge: JudgeConfig = JudgeConfig()
    sandbox: SandboxConfig = SandboxConfig()


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer. `missing` makes the exit code 3; a `note` is something to know."""

    name: str
    state: State
    text: str
    hint: str = ""


LINE = CommandLine(
    "rlaif doctor",
    "What this machine has: versions, device, threads, the sandbox's grade, models in the cache, and whether the judge can be reached.",
    "rlaif doctor",
    DoctorConfig,
    switches={"json": "The checks as JSON on stdout."},
)


def run(argv: Sequence[str]) -> int:
    """Returns 0 if a run could start here, 3 if something that it needs is missing."""
    parsed = LINE.parse(argv)
    config = parsed.settings
    found: list[Check] = []
    checks = {
        "versions": versions,
        "device": device,
        "sandbox": lambda: sandbox(config.sandbox),
        "model": models,
        "judge": lambda: judge(config.judge),
        "disk": disk,
    }
    for name, check in checks.items():
        for one in _guarded(name, check):
            found.append(one)
            if "json" not in parsed.switches:
                print(_line(one), flush=True)
    if "json" in parsed.switches:
        print(json.dumps({"ok": all(one.state != "missing" for one in found), "checks": [asdict(one) for one in found]}))
    return EnvironmentFailure.exit_code if any(one.state == "missing" for one in found) else 0


def versions() -> Iterator[Check]:
    """Python, the machine and the packages that matter."""
    from rlaif.runs.environment import collect_environment

    facts = collect_environment()
    machine = facts["machine"]
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else ""
    yield Check("machine", "ok", f"{machine['cpu']}, {machine['cores']} cores{memory}; {facts['platform']}")
    packages = facts["packages"]
    yield Check("versions", "ok", f"python {facts['python']}, " + ", ".join(f"{name} {version}" for name, version in packages.items()))
    lacking = [name for name in ("torch", "transformers") if name not in packages]
    if lacking:
        yield Check("packages", "missing", f"not installed: {', '.join(lacking)}", "pip install -r requirements.txt")


def device() -> Iterator[Check]:
    """Where a model would run, with how many threads and in which type."""
    import torch

    from rlaif.policy.model import fast_bf16, resolve_device

    where = resolve_device("auto")
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    compute = "bfloat16" if fast_bf16(where.type) else "float32"
    yield Check("device", "ok", f"{name}, computing in {compute} (measured)" if where.type == "cpu" else f"{name}, computing in {compute}")
    yield Check("threads", "ok", f"{torch.get_num_threads()} of {os.cpu_count()} processors")


def sandbox(config: SandboxConfig) -> Iterator[Check]:
    """The isolation that was reached, and one program run in it."""
    from rlaif.sandbox import Sandbox
    from rlaif.types import Problem, TestCase

    with Sandbox(config) as box:
        facts = box.describe()
        start = time.perf_counter()
        report = box.run(Problem("doctor", "", (TestCase("graded", "add(2, 3)", "5"),), "add"), "def add(a, b):\n    return a + b\n")
        took_ms = 1000 * (time.perf_counter() - start)
    layers = [name for name, reached in facts["layers"].items() if reached]
    without = [name for name, reached in facts["layers"].items() if not reached]
    if not report.all_passed:
        yield Check("sandbox", "missing", f"it cannot run a program: {report.failure}: {report.message}", "rlaif doctor --debug")
        return
    lacking = f"; not here: {', '.join(without)}" if without else ""
    yield Check("sandbox", "ok" if facts["grade"] in ("strong", "strongest") else "note", f"grade {facts['grade']} ({', '.join(layers)}){lacking}")
    yield Check("program", "ok", f"one ran and passed in {took_ms:.0f} ms")
    for note in facts.get("notes", ()):
        yield Check("sandbox", "note", str(note))


def models() -> Iterator[Check]:
    """Models that need no download any more."""
    from rlaif.policy.weights import MIRRORS, cache_root, cached_models

    cached = cached_models()
    for name in MIRRORS:
        text = f"{name} in {cached[name]}" if name in cached else f"{name} is not here yet"
        yield Check("model", "ok" if name in cached else "note", text, "" if name in cached else "the first run fetches it, about 100 MB")
    names = sorted(_hub_cache())
    yield Check("hub cache", "ok", ", ".join(names) if names else "empty")
    if partial := [path.name for path in (cache_root() / "models").glob("*") if path.is_dir() and path.name not in cached]:
        yield Check("model", "note", f"incomplete: {', '.join(partial)}", "it is replaced on the next use")


def judge(config: JudgeConfig) -> Iterator[Check]:
    """Whether the judge that the flags name could answer."""
    match config.kind:
        case "none":
            yield Check("judge", "ok", "none was asked for")
        case "api":
            yield _reach(config)
        case "embedded":
            from rlaif.judge.embedded import BASE_MODEL, SHIPPED
            from rlaif.policy.weights import cached_models

            shipped = (SHIPPED / "adapter_config.json").is_file()
            here = BASE_MODEL in cached_models()
            what = "trained and calibrated" if shipped else "the base model as it is, uncalibrated: rely on tests"
            base = "its base model is here" if here else f"its base model {BASE_MODEL} is fetched on first use"
            yield Check("judge", "ok" if shipped and here else "note", f"embedded, {what}; {base}")
        case "local":
            from rlaif.policy.weights import resolve_weights

            if config.model is None and config.adapter is None:
                yield Check("judge", "missing", "the local judge needs a model", "--judge.model NAME")
                return
            yield Check("judge", "ok", f"local, {resolve_weights(config.model, offline=True) if config.model else config.adapter}")


def disk() -> Iterator[Check]:
    """Room for a run: a checkpoint of the default model with its optimiser state is about 1.6 GB."""
    import shutil

    free = shutil.disk_usage(Path.cwd()).free
    enough = free > 5 * 2**30
    yield Check(
        "disk", "ok" if enough else "note", f"{free / 2**30:.0f} GiB free here", "" if enough else "a run with full weights writes about 4 GB"
    )


def _reach(config: JudgeConfig) -> Check:
    """Ask an OpenAI-compatible server for its models; costs no tokens."""
    from openai import APIConnectionError, APIStatusError, OpenAI

    where = config.base_url or "https://api.openai.com/v1"
    key = os.environ.get(config.api_key_env, "")
    if not key and config.base_url is None:
        return Check(
            "judge", "missing", f"the environment variable {config.api_key_env} is not set", "set it, or --judge.base-url for a server of your own"
        )
    client = OpenAI(base_url=config.base_url, api_key=key or "none", timeout=REACH_TIMEOUT_S, max_retries=0)
    try:
        names = [model.id for model in client.models.list().data]
    except APIConnectionError as error:
        return Check("judge", "missing", f"no server answers at {where}: {error.__cause__ or error}", "start it, or correct --judge.base-url")
    except APIStatusError as error:
        return Check("judge", "missing", f"the server at {where} refused: HTTP {error.status_code}", f"check the key in {config.api_key_env}")
    if config.model is not None and config.model not in names:
        return Check(
            "judge", "missing", f"{where} has no model {config.model!r}; it has {', '.join(names[:8]) or 'none'}", "--judge.model with one of them"
        )
    return Check("judge", "ok", f"{where} answers, with {len(names)} models")


def _hub_cache() -> list[str]:
    """Models in the Hugging Face cache, by the folders' names: reading them all would take seconds."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return [path.name.removeprefix("models--").replace("--", "/") for path in Path(HF_HUB_CACHE).glob("models--*")]


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from check()
    except Exception as error:  # a broken installation is what this command is for
        yield Check(name, "missing", " ".join(explain(error)[0].splitlines()))


def _line(check: Check) -> str:
    mark = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}[check.state]
    return f"{mark} {check.name:<9} {check.text}" + (f"\n        {'':<9} {check.hint}" if check.hint else "")
