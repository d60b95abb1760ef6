"""OpenRLHF's own client of remote rewards asks our server: `python benchmarks/interop/openrlhf_client.py` (its own environment, CPU only).

Installed with `pip install --no-deps openrlhf==0.11.2`. What is OpenRLHF's here: `SingleTurnAgentExecutor`, which builds the query, posts it with
its own timeouts and retries and reads the answer; `preprocess_data`, which reads an exported row; `_process_response_into_experience`, which makes
the tensors that training uses. What is not: the engine (its `generate` hands back a prepared reply, for there is no GPU), and two imports that
these modules make and do not use here, `ray` and `vllm`, which are empty modules; `openrlhf/utils/__init__.py`, which imports deepspeed, is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environments import RLAIF_NEEDS, inside
from replies import Reply, replies

STEPS = (
    ("torch==2.13.0", "transformers==5.9.0", "aiohttp", "tqdm", *RLAIF_NEEDS),
    ("--no-deps", "openrlhf==0.11.2"),
)
TOKEN = "a-token-of-some-length"


def import_openrlhf() -> tuple[Any, Any, Any]:
    """(agent module, preprocess_data, SamplesGenerator), with the heavy imports out of the way."""
    found = importlib.util.find_spec("openrlhf")
    assert found is not None and found.submodule_search_locations is not None
    root = Path(next(iter(found.submodule_search_locations)))
    for name in ("utils", "trainer", "trainer.ray", "datasets"):
        package = types.ModuleType(f"openrlhf.{name}")
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[package.__name__] = package
    for name, members in {"ray": (), "vllm": ("SamplingParams",), "openrlhf.trainer.ray.vllm_engine": ("batch_vllm_engine_call",)}.items():
        stub = types.ModuleType(name)
        for member in members:
            setattr(stub, member, None)
        sys.modules[name] = stub
    from openrlhf.datasets.prompts_dataset import preprocess_data
    from openrlhf.trainer.ppo_utils import samples_generator
    from openrlhf.utils import agent

    generators = [one for one in vars(samples_generator).values() if hasattr(one, "_process_response_into_experience")]
    return agent, preprocess_data, generators[0]


class Engine:
    """Stands in for vLLM: says what it was told to say."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]

    async def generate(self, prompt_ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        output = types.SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None, text="")
        return types.SimpleNamespace(outputs=[output])


@contextlib.contextmanager
def server(*words: str, token: str = "") -> Iterator[str]:
    """`rlaif serve` on a free port, run by the Python that this check was started with; its port."""
    command = [os.environ["RLAIF_PYTHON"], "-m", "rlaif", "serve", "--port", "0", "--feedback", "execution", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"RLAIF_TOKEN": token})
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split("127.0.0.1:")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def main() -> dict[str, Any]:
    from verl_reward import make_tokenizer

    import rlaif.integrations.openrlhf as ours
    from rlaif.problems.export import export_row

    agent, preprocess_data, generator = import_openrlhf()
    wanted = replies(8)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        tokenizer = make_tokenizer(Path(name))
        params = types.SimpleNamespace(max_tokens=512, logprobs=None)

        async def run(executor: Any, reply: Reply) -> dict[str, Any]:
            row = json.loads(json.dumps(export_row(reply.problem, "openrlhf")))
            prompt, label = preprocess_data(row, input_key="input", label_key="label", apply_chat_template=tokenizer.apply_chat_template)
            return await executor.execute(prompt, label, params, 100_000, tokenizer, Engine(tokenizer, reply.text))

        async def run_all(executor: Any) -> list[dict[str, Any]]:
            return await asyncio.gather(*(run(executor, reply) for reply in wanted))

        def outside(outputs: list[dict[str, Any]]) -> list[str]:
            pairs = [(reply, output["reward"]) for reply, output in zip(wanted, outputs, strict=True)]
            return [f"{reply.kind}: {got}" for reply, got in pairs if got is None or not reply.lowest <= got[0] <= reply.highest]

        with server() as port:
            started = time.monotonic()
            outputs = asyncio.run(run_all(agent.SingleTurnAgentExecutor(f"http://127.0.0.1:{port}/get_reward")))
            seconds = time.monotonic() - started
        experiences = [generator._process_response_into_experience(None, output, max_len=100_000) for output in outputs]
        found["http"] = {
            "samples": len(outputs),
            "outside_their_band": outside(outputs),
            "seconds": round(seconds, 2),
            "rewards_reach_the_experience": all(
                abs(float(one.rewards.reshape(-1)[0]) - output["reward"][0]) < 1e-6 for one, output in zip(experiences, outputs, strict=True)
            ),
            "logged": sorted(set(experiences[0].info) - {"response_clip_ratio"}),
        }
        with server(token=TOKEN) as port:
            known = asyncio.run(run(agent.SingleTurnAgentExecutor(f"http://any:{TOKEN}@127.0.0.1:{port}/get_reward"), wanted[0]))
        found["token_in_the_url"] = known["reward"] is not None
        with server("--request-timeout-s", "0.001") as port:
            started = time.monotonic()
            late = asyncio.run(run(agent.SingleTurnAgentExecutor(f"http://127.0.0.1:{port}/get_reward"), wanted[0]))
        found["server_answers_503"] = {"reward": late["reward"], "seconds_of_retries": round(time.monotonic() - started, 1)}
        settings = Path(name) / "reward.toml"
        settings.write_text('feedback = "execution"\n')
        os.environ[ours.CONFIG_VARIABLE] = str(settings)
        found["function_file"] = {"outside_their_band": outside(asyncio.run(run_all(agent.SingleTurnAgentExecutor(ours.__file__))))}
    found["ok"] = (
        not found["http"]["outside_their_band"]
        and found["http"]["rewards_reach_the_experience"]
        and found["token_in_the_url"]
        and found["server_answers_503"]["reward"] is None
        and not found["function_file"]["outside_their_band"]
    )
    return found


if __name__ == "__main__":
    inside("openrlhf", STEPS, main, shown=("openrlhf", "aiohttp", "torch", "transformers"))
