"""Checkpoints, the journal and Ctrl-C: nothing is lost, and nothing half-written is taken for whole."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest
import torch

from rlaif.errors import RunFailed, UsageError
from rlaif.train import checkpoint as ck
from rlaif.train.interrupts import InterruptGuard
from rlaif.train.journal import FeedbackJournal
from rlaif.types import Feedback, JudgeReport, TestCase, TestReport, TestResult


def small_state(seed: int = 0):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return layer, optimizer


def test_a_checkpoint_restores_weights_moments_and_state(tmp_path):
    layer, optimizer = small_state()
    tensors = ck.trainable_tensors(layer, None)
    path = ck.save_checkpoint(tmp_path, 3, tensors, optimizer, {"x": [1, 2]}, keep=2)
    other, other_optimizer = small_state(1)
    state = ck.load_checkpoint(path, ck.trainable_tensors(other, None), other_optimizer)
    assert state["x"] == [1, 2] and state["episode"] == 3
    for module, opt in ((layer, optimizer), (other, other_optimizer)):
        opt.zero_grad()
        module(torch.ones(1, 3)).sum().backward()
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), other.parameters(), strict=True))


def test_a_checkpoint_in_many_parts_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(ck, "PART_BYTES", 1)
    layer, optimizer = small_state()
    path = ck.save_checkpoint(tmp_path, 1, ck.trainable_tensors(layer), optimizer, {}, keep=1)
    assert len(list(path.glob("trainable-*"))) == 2
    other, other_optimizer = small_state(1)
    ck.load_checkpoint(path, ck.trainable_tensors(other), other_optimizer)
    assert torch.equal(layer.weight, other.weight) and torch.equal(layer.bias, other.bias)


def test_only_the_newest_are_kept(tmp_path):
    layer, optimizer = small_state()
    for episode in (1, 2, 10):
        ck.save_checkpoint(tmp_path, episode, ck.trainable_tensors(layer), optimizer, {}, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["episode-000002", "episode-000010"]
    assert ck.newest_checkpoint(tmp_path).name == "episode-000010"


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    layer, optimizer = small_state()
    ck.save_checkpoint(tmp_path, 1, ck.trainable_tensors(layer), optimizer, {}, keep=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ck, "save_file", full)
    with pytest.raises(RunFailed, match="disk is full") as error:
        ck.save_checkpoint(tmp_path, 2, ck.trainable_tensors(layer), optimizer, {}, keep=1)
    assert "--resume" in str(error.value) and "episode-000001" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["episode-000001"]


def test_a_half_written_checkpoint_is_never_found(tmp_path, monkeypatch):
    layer, optimizer = small_state()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ck, "_sync", killed)
    with pytest.raises(KeyboardInterrupt):
        ck.save_checkpoint(tmp_path, 1, ck.trainable_tensors(layer), optimizer, {}, keep=1)
    assert ck.newest_checkpoint(tmp_path) is None


def test_a_broken_or_foreign_checkpoint_changes_nothing(tmp_path):
    layer, optimizer = small_state()
    path = ck.save_checkpoint(tmp_path, 1, ck.trainable_tensors(layer), optimizer, {}, keep=1)
    other = torch.nn.Linear(5, 2)
    before = other.weight.detach().clone()
    with pytest.raises(UsageError, match="another model"):
        ck.load_checkpoint(path, ck.trainable_tensors(other), torch.optim.AdamW(other.parameters()))
    assert torch.equal(before, other.weight)
    (path / "trainable-000.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="cannot be read"):
        ck.load_checkpoint(path, ck.trainable_tensors(layer), optimizer)


def feedback() -> Feedback:
    test = TestCase("graded", "f(1)", "2")
    report = TestReport("scored", (TestResult(test, False, "3", cpu_s=0.25),), cpu_s=0.25, grade="strong", path="lowered")
    return Feedback(0.125, "scored", True, "poor", report, JudgeReport(0.5, {"clarity": 0.25}, ("so",)), reasons=("1 test failed",))


def test_the_journal_gives_back_exactly_what_was_said(tmp_path):
    journal = FeedbackJournal(tmp_path / "j.jsonl")
    keys = journal.keys(4, ["a", "a", "b"])
    assert len(set(keys)) == 3
    journal.put(keys[:2], [feedback(), Feedback(None, "infra_failure")])
    again = FeedbackJournal(tmp_path / "j.jsonl")
    assert again.get(keys[0]) == feedback()
    assert again.get(keys[1]) is None, "an infrastructure failure gets another try"
    with (tmp_path / "j.jsonl").open("a") as file:
        file.write('{"key": "4:9:xx", "feedb')
    assert FeedbackJournal(tmp_path / "j.jsonl").get(keys[0]) == feedback()
    again.trim(4)
    assert FeedbackJournal(tmp_path / "j.jsonl").get(keys[0]) is None


def test_ctrl_c_waits_for_a_protected_stretch():
    reached = []
    with InterruptGuard() as guard, pytest.raises(KeyboardInterrupt):
        with guard.protected():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end of the stretch")
        reached.append("after it")
    assert reached == ["the end of the stretch"]


def test_ctrl_c_elsewhere_stops_at_once_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with InterruptGuard(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on after the signal")
    assert signal.getsignal(signal.SIGINT) is before


def test_state_json_holds_no_pickle(tmp_path):
    layer, optimizer = small_state()
    path = ck.save_checkpoint(tmp_path, 1, ck.trainable_tensors(layer), optimizer, {}, keep=1)
    assert sorted(file.name for file in path.iterdir()) == ["optimizer-000.safetensors", "state.json", "trainable-000.safetensors"]
    json.loads((path / "state.json").read_text())
