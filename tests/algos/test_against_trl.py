"""TRL's own GRPOTrainer and RLOOTrainer take a real step on a tiny model; ours, on the same tokens and rewards, must move every weight alike.

TRL works advantages out inline and so cannot be asked for them alone: a real one-step run is recorded (tokens, advantages, loss, weights
after plain SGD) and each part compared. Its `_compute_loss` is also called a second time with other old log-probabilities, where clipping bites.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif.algos import advantages, kl, losses
from rlaif.algos.recipes import recipe_for
from rlaif.config import TrainConfig
from rlaif.policy.model import load_policy
from rlaif.policy.sampler import Sample
from rlaif.train.rollout import Batch
from rlaif.train.update import update
from tests.tiny_models import make_tiny

trl = pytest.importorskip("trl")

P, G, T = 2, 4, 10
PROMPTS = ["def add(a, b):", "def count_vowels(text):\n    total"]


def reward_of(ids: list[int]) -> float:
    """Some number in [0, 1] that differs between completions."""
    return sum(ids) % 17 / 16


def recorded(trainer: type, folder: Path, output: Path, **options: Any) -> Any:
    """Run one step of a TRL trainer with plain SGD at rate 1 -> the trainer; what its loss saw is in `.seen`, its loss in `.loss`."""

    class Recording(trainer):
        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            self.seen, self.loss = inputs, loss.detach()
            return loss

    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = {trl.GRPOTrainer: trl.GRPOConfig, trl.RLOOTrainer: trl.RLOOConfig}[trainer]
    args = config(
        output_dir=str(output),
        per_device_train_batch_size=P * G,
        num_generations=G,
        max_completion_length=T,
        max_steps=1,
        max_grad_norm=1e9,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=3,
        **options,
    )
    run = Recording(
        model=model,
        args=args,
        reward_funcs=lambda completion_ids, **_: [reward_of(ids) for ids in completion_ids],
        train_dataset=Dataset.from_list([{"prompt": text} for text in PROMPTS]),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)
    run.optimizer, run.lr_scheduler = optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    run.train()
    return run


def batch_of(run: Any) -> Batch:
    """TRL's own rows as our batch."""
    seen = run.seen
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(seen["completion_ids"], seen["completion_mask"], strict=True)]
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(seen["prompt_ids"], seen["prompt_mask"], strict=True)]
    order = sorted(range(len(rows)), key=lambda row: prompts[row])  # TRL shuffles: bring each prompt's rows together
    run.order = torch.tensor(order)
    rows, prompts = [rows[row] for row in order], [prompts[row] for row in order]
    assert all(prompts[p * G + g] == prompts[p * G] for p in range(P) for g in range(G))
    samples = [[Sample(tuple(ids), "eos", ()) for ids in rows[p * G : (p + 1) * G]] for p in range(P)]
    reward_PG = torch.tensor([reward_of(ids) for ids in rows]).view(P, G)
    return Batch(prompts[::G], samples, reward_PG, torch.ones(P, G, dtype=torch.bool), [], 0.0, 0.0)


def assert_same_step(run: Any, algo: str, folder: Path, **changes: Any) -> dict[str, float]:
    """Our update on TRL's rows moves every weight as TRL's step did."""
    policy = load_policy(folder, dtype="float32", device="cpu")
    before = {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}
    config = TrainConfig(algo=algo, group_size=G, max_new_tokens=T, temperature=1.0, max_grad_norm=1e9, **changes)
    optimizer = torch.optim.SGD(policy.trainable_parameters(), lr=1.0)
    metrics = update(policy, optimizer, batch_of(run), recipe_for(config.algo), config, torch.Generator())
    theirs = dict(run.model.named_parameters())
    largest = max(float((parameter.detach() - before[name]).abs().max()) for name, parameter in theirs.items())
    assert largest > 1e-3, "TRL did not move: the comparison would say nothing"
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), theirs[name].detach(), atol=2e-5 * max(largest, 1.0), rtol=1e-4, msg=name)
    return metrics


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("trl") / "llama", scale=0.15)


GRPO_VARIANTS = {
    "grpo": {"loss_type": "grpo", "beta": 0.0},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.0},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4, "beta": 0.0},
}


@pytest.mark.parametrize("algo", GRPO_VARIANTS)
def test_one_grpo_step_moves_every_weight_as_trl_does(tiny, tmp_path, algo, monkeypatch):
    run = recorded(trl.GRPOTrainer, tiny, tmp_path, **GRPO_VARIANTS[algo])
    if algo == "dapo":  # TRL's dapo has no overlong penalty (there it is a reward function)
        monkeypatch.setattr(advantages, "soft_overlong_penalty", lambda length_B, *_: torch.zeros(len(length_B)))
    metrics = assert_same_step(run, algo, tiny)
    assert metrics["ratio"] == 1.0

    # advantages: TRL's are in the order of its rows
    batch = batch_of(run)
    ours_PG = advantages.group_advantage(batch.reward_PG, batch.valid_PG, scale_by_std=recipe_for(algo).scale_by_std)
    torch.testing.assert_close(ours_PG.flatten(), run.seen["advantages"][run.order], atol=1e-6, rtol=1e-5)

    # losses away from the old policy, where both clips bite on some tokens
    seen, recipe = run.seen, recipe_for(algo)
    with torch.no_grad():
        ids, mask = (torch.cat([seen[f"prompt_{what}"], seen[f"completion_{what}"]], 1) for what in ("ids", "mask"))
        logp_BT = run._get_per_token_logps_and_entropies(run.model, ids, mask, seen["completion_ids"].shape[1])[0]
        old_BT = logp_BT + 0.5 * torch.randn(logp_BT.shape, generator=torch.Generator().manual_seed(1))
        theirs = trl.GRPOTrainer._compute_loss(run, run.model, {**seen, "old_per_token_logps": old_BT})
    mask_BT, advantage_BT = seen["completion_mask"].bool(), seen["advantages"][:, None].expand_as(logp_BT)
    if recipe.loss == "gspo":
        loss_BT, metrics = losses.gspo_surrogate(logp_BT, old_BT, advantage_BT, mask_BT, clip_low=recipe.clip_low, clip_high=recipe.clip_high)
    else:
        loss_BT, metrics = losses.clipped_surrogate(logp_BT, old_BT, advantage_BT, clip_low=recipe.clip_low, clip_high=recipe.clip_high)
    assert 0.05 < metrics["clip_fraction"][mask_BT].mean() < 0.95
    weight_BT = losses.token_weight(mask_BT, recipe.average, losses.Denominators.of(mask_BT), max_tokens=T)
    torch.testing.assert_close((weight_BT * loss_BT).sum(), theirs, atol=1e-6, rtol=1e-5)


def test_grpo_with_a_kl_term(tiny, tmp_path):
    """TRL's bias-corrected KL is ours; on the first step it is 0 in value and gradient, so the loss is compared away from it too."""
    run = recorded(trl.GRPOTrainer, tiny, tmp_path, loss_type="grpo", beta=0.3, use_bias_correction_kl=True)
    assert_same_step(run, "grpo", tiny, kl_coef=0.3)
    seen = run.seen
    ids, mask = (torch.cat([seen[f"prompt_{what}"], seen[f"completion_{what}"]], 1) for what in ("ids", "mask"))
    with torch.no_grad():
        logp_BT = run._get_per_token_logps_and_entropies(run.model, ids, mask, seen["completion_ids"].shape[1])[0]
        theirs = trl.GRPOTrainer._compute_loss(run, run.model, seen | {"old_per_token_logps": logp_BT - 0.1})
    mask_BT = seen["completion_mask"].bool()
    loss_BT, _ = losses.clipped_surrogate(logp_BT, logp_BT - 0.1, seen["advantages"][:, None].expand_as(logp_BT), clip_low=0.2, clip_high=0.2)
    loss_BT = loss_BT + 0.3 * kl.kl_loss(logp_BT, logp_BT - 0.1, seen["ref_per_token_logps"])
    weight_BT = losses.token_weight(mask_BT, "sequence", losses.Denominators.of(mask_BT))
    torch.testing.assert_close((weight_BT * loss_BT).sum(), theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_one_rloo_step_moves_every_weight_as_trl_does(tiny, tmp_path, beta):
    run = recorded(trl.RLOOTrainer, tiny, tmp_path, beta=beta)
    assert_same_step(run, "rloo", tiny, kl_coef=beta)
    batch = batch_of(run)
    ours_PG = advantages.rloo_advantage(batch.reward_PG, batch.valid_PG)
    torch.testing.assert_close(ours_PG.flatten(), run.seen["advantages"][run.order], atol=1e-5, rtol=1e-5)

    seen = run.seen
    with torch.no_grad():
        ids, mask = (torch.cat([seen[f"prompt_{what}"], seen[f"completion_{what}"]], 1) for what in ("ids", "mask"))
        logp_BT = run._get_per_token_logps_and_entropies(run.model, ids, mask, seen["completion_ids"].shape[1])[0]
        mask_BT = seen["completion_mask"].bool()
        old_BT = logp_BT + 0.1 * torch.randn(logp_BT.shape, generator=torch.Generator().manual_seed(1))
        theirs = trl.RLOOTrainer._compute_loss(run, run.model, {**seen, "old_logps": (old_BT * mask_BT).sum(1)})
    advantage_BT = seen["advantages"][:, None].expand_as(logp_BT)
    loss_BT, metrics = losses.sequence_surrogate(logp_BT, old_BT, advantage_BT, mask_BT, clip_low=0.2, clip_high=0.2)
    assert 0 < metrics["clip_fraction"][mask_BT].mean() < 1
    weight_BT = losses.token_weight(mask_BT, "sequence", losses.Denominators.of(mask_BT))
    torch.testing.assert_close((weight_BT * loss_BT).sum(), theirs, atol=1e-6, rtol=1e-5)
