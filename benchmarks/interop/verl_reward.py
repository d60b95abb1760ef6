"""verl's own reward code calls ours: `python benchmarks/interop/verl_reward.py` (its own environment, CPU only, about 2 GB, no Ray cluster).

Installed without its GPU dependencies: `pip install --no-deps verl==0.9.1`, with what its reward modules import. What is verl's here: the
configuration file of its rewards, `load_reward_manager` (which loads `pkg://rlaif.integrations.verl`), its reward managers, its
`RewardLoopWorker` (the class that a Ray actor is made of, here without the actor), `DataProto` and `RLHFDataset` on an exported file.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from environments import RLAIF_NEEDS, inside
from replies import replies

STEPS = (
    ("torch==2.13.0", "transformers==5.9.0", "tensordict>=0.8,<=0.10", "ray", "hydra-core", "codetiming", "pandas", "pyarrow", "datasets"),
    ("peft", "accelerate", "torchdata", "dill", "aiohttp", "packaging", "pillow", *RLAIF_NEEDS),
    ("--no-deps", "verl==0.9.1"),
)


def make_tokenizer(folder: Path) -> Any:
    """A byte-level tokenizer with a chat template; any text survives it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {text: number for number, text in enumerate(["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    tokenizer.save_pretrained(folder)
    return tokenizer


def reward_settings(manager: str) -> Any:
    """verl's own reward.yaml with our function in it."""
    import verl
    from omegaconf import OmegaConf

    reward = OmegaConf.load(Path(verl.__file__).parent / "trainer/config/reward/reward.yaml")
    ours = {"path": "pkg://rlaif.integrations.verl", "name": "compute_score", "reward_kwargs": {"feedback": "execution"}}
    return OmegaConf.merge(
        {"reward": reward, "actor_rollout_ref": {"model": {}}}, {"reward": {"custom_reward_function": ours, "reward_manager": {"name": manager}}}
    )


def batch_of(tokenizer: Any, rows: list[dict[str, Any]], texts: list[str]) -> Any:
    """Replies as verl's rollout hands them over: token ids padded on the right, the data set's columns beside them."""
    import numpy as np
    import torch
    from verl import DataProto

    prompts = torch.zeros((len(texts), 1), dtype=torch.long)
    ids = [tokenizer(text).input_ids for text in texts]
    width = max(map(len, ids))
    responses = torch.tensor([one + [tokenizer.pad_token_id] * (width - len(one)) for one in ids])
    mask = torch.tensor([[1] + [1] * len(one) + [0] * (width - len(one)) for one in ids])
    columns = {name: np.array([row[name] for row in rows], dtype=object) for name in ("data_source", "reward_model", "extra_info")}
    return DataProto.from_dict(tensors={"prompts": prompts, "responses": responses, "attention_mask": mask}, non_tensors=columns)


def main() -> dict[str, Any]:
    from omegaconf import OmegaConf
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from rlaif.integrations import verl as ours
    from rlaif.problems.export import export_problems, export_row

    found: dict[str, Any] = {}
    wanted = replies(8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = make_tokenizer(folder)
        rows = [export_row(reply.problem, "verl") for reply in wanted]
        for manager in ("naive", "dapo"):
            config = reward_settings(manager)
            config.actor_rollout_ref.model.path = config.actor_rollout_ref.model.tokenizer_path = str(folder)
            worker = RewardLoopWorker(config)
            batch = batch_of(tokenizer, rows, [reply.text for reply in wanted])
            started = time.monotonic()
            answers = worker.loop.run_until_complete(worker.compute_score_batch(batch))
            seconds = time.monotonic() - started
            wrong = [
                f"{reply.kind}: {answer['reward_score']}"
                for reply, answer in zip(wanted, answers, strict=True)
                if not reply.lowest <= answer["reward_score"] <= reply.highest
            ]
            keys = {tuple(sorted(answer["reward_extra_info"])) for answer in answers}
            found[manager] = {"samples": len(answers), "outside_their_band": wrong, "different_sets_of_keys": len(keys), "seconds": round(seconds, 2)}

        export_problems([reply.problem for reply in wanted[::4]], "verl", folder / "train.parquet")
        lengths = {"max_prompt_length": 4096, "filter_overlong_prompts": True}
        data = OmegaConf.create({"cache_dir": str(folder / "cache"), "prompt_key": "prompt"} | lengths)
        rows_read = RLHFDataset(str(folder / "train.parquet"), tokenizer, data)
        found["data_set"] = {
            "rows": len(rows_read),
            "ground_truth_survives": all(
                rows_read[i]["reward_model"]["ground_truth"] == rows[4 * i]["reward_model"]["ground_truth"] for i in range(len(rows_read))
            ),
        }

        score = get_custom_reward_fn(reward_settings("naive"))
        sandbox = ours.shared_scorer({"feedback": "execution"}).engine.sandbox
        sandbox.run_many = lambda jobs: (_broken() for _ in jobs)
        try:
            asyncio.run(score(data_source="rlaif", solution_str=wanted[0].text, ground_truth=rows[0]["reward_model"]["ground_truth"], extra_info={}))
            found["broken_sandbox"] = "a score"
        except Exception as error:
            found["broken_sandbox"] = f"raises {type(error).__name__}"
    found["ok"] = (
        all(not found[name]["outside_their_band"] and found[name]["different_sets_of_keys"] == 1 for name in ("naive", "dapo"))
        and found["data_set"]["ground_truth_survives"]
        and found["broken_sandbox"] == "raises RewardUnavailable"
    )
    return found


def _broken() -> Any:
    from rlaif.types import TestReport

    return TestReport("infra_failure", (), "the sandbox broke")


if __name__ == "__main__":
    inside("verl", STEPS, main, shown=("verl", "torch", "ray", "tensordict", "transformers"))
