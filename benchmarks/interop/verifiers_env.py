"""A verifiers environment scored by our reward: `python benchmarks/interop/verifiers_env.py` (its own environment, no model, no GPU).

What is verifiers' here: its loader of task sets and harnesses, `SingleAgentEnv`, the interception server, the client, the trace and its scoring
(`recipes/interop/rlaif_env.py` is the task set). The model is a server in this process that speaks the chat completions API and hands back
prepared replies; the harness is `direct_harness.py`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environments import RLAIF_NEEDS, ROOT, inside
from replies import Reply, replies

STEPS = (("verifiers==0.4.0", *RLAIF_NEEDS),)


async def start_model(wanted: list[Reply]) -> tuple[Any, str]:
    """A chat completions server whose model names are kinds of reply; (runner, address)."""
    from aiohttp import web

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        said = str(body["messages"])
        text = next(one.text for one in wanted if one.kind == body["model"] and one.problem.signature in said)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices, "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


async def run(wanted: list[Reply], exported: Path) -> dict[str, Any]:
    import verifiers.v1 as vf
    from verifiers.v1.utils.loaders import load_environment

    from rlaif.integrations.scorer import shared_scorer
    from rlaif.types import TestReport

    taskset = {"id": "rlaif_env", "problems": str(exported), "task": {"feedback": "execution"}}
    agent = {"harness": {"id": "direct_harness"}, "runtime": {"type": "subprocess"}}
    config = vf.SingleAgentEnvConfig.model_validate({"taskset": taskset, "agent": agent})
    env = load_environment(config)
    tasks = list(env.taskset)
    kinds = ["right", "wrong", "missing", "prose"]
    found: dict[str, Any] = {"env": type(env).__name__, "tasks": len(tasks)}
    runner, address = await start_model(wanted)
    client = vf.EvalClientConfig(base_url=address, api_key_var="NO_KEY")

    async def episodes(names: list[str]) -> list[Any]:
        plan = [(slot, vf.ModelContext(model=kind, client=client)) for task in tasks for kind in names for slot in env.slots(task)]
        return list(await asyncio.gather(*(env.run_slot(slot, context) for slot, context in plan)))

    async with env.serving():
        started = time.monotonic()
        done = await episodes(kinds)
        found["seconds"] = round(time.monotonic() - started, 2)
        said = [error.message for one in done for error in one.errors] + [str(one.traces[0].last_error) for one in done if not one.ok and one.traces]
        found["errors"] = sorted({one[:300] for one in said})
        rewards = [one.traces[0].reward if one.traces else -1.0 for one in done]
        found["episodes"] = len(done)
        found["outside_their_band"] = [f"{r.kind}: {got}" for r, got in zip(wanted, rewards, strict=True) if not r.lowest <= got <= r.highest]
        found["metrics"] = dict(done[0].traces[0].metrics) if done[0].traces else {}
        if found["errors"]:
            return found | {"ok": False}
        shared_scorer({"feedback": "execution", "judge": {}, "sandbox": {}}).engine.sandbox.run_many = lambda jobs: (
            TestReport("infra_failure", (), "the sandbox broke") for _ in jobs
        )
        (broken, *_) = await episodes(["right"])
        trace = broken.traces[0]
        said = str(trace.last_error.message) if trace.last_error else None
        found["broken_sandbox"] = {"ok": broken.ok, "rewards": dict(trace.rewards), "error": said}
    await runner.cleanup()
    found["ok"] = not found["errors"] and not found["outside_their_band"] and not broken.ok and all(one is None for one in trace.rewards.values())
    return found


def main() -> dict[str, Any]:
    from rlaif.problems.export import export_problems

    sys.path.insert(0, str(ROOT / "recipes" / "interop"))
    wanted = replies(8)
    with tempfile.TemporaryDirectory() as name:
        exported = Path(name) / "train.jsonl"
        export_problems([reply.problem for reply in wanted[::4]], "verifiers", exported)
        return asyncio.run(run(wanted, exported))


if __name__ == "__main__":
    inside("verifiers", STEPS, main, shown=("verifiers", "openai"))
