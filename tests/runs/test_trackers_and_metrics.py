import sys
from types import ModuleType

import pytest

from rlaif.errors import EnvironmentFailure
from rlaif.runs import open_tracker
from rlaif.runs.metrics import METRICS, describe, format_seconds, format_value, verdict


def test_off_by_default(tmp_path):
    assert open_tracker(None, tmp_path, {}) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["trackio", "wandb", "tensorboard"])
def test_a_missing_package_names_its_extra(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(EnvironmentFailure, match=rf"pip install 'rlaif\[{kind}\]'") as caught:
        open_tracker(kind, tmp_path, {})
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_wandb_and_trackio_get_numbers_only(kind, tmp_path, monkeypatch):
    calls = []
    fake = ModuleType(kind)
    fake.init = lambda **kwargs: calls.append(kwargs)
    fake.log = lambda metrics, step: calls.append((metrics, step))
    fake.finish = lambda: calls.append("finish")
    monkeypatch.setitem(sys.modules, kind, fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = open_tracker(kind, tmp_path / "run", {"episodes": 2})
    tracker.log({"reward_mean": 0.5, "note": "text", "flag": True, "none": None}, 1)
    tracker.close()
    assert calls[0]["name"] == "run" and calls[0]["config"] == {"episodes": 2}
    assert calls[0].get("mode") == ("offline" if kind == "wandb" else None), "nothing leaves the machine unasked"
    assert calls[1:] == [({"reward_mean": 0.5}, 1), "finish"]


def test_a_tracker_that_cannot_start_says_so(tmp_path, monkeypatch):
    fake = ModuleType("wandb")

    def broken(**_):
        raise RuntimeError("no key")

    fake.init = broken
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(EnvironmentFailure, match="wandb could not start\nno key"):
        open_tracker("wandb", tmp_path, {})


def test_tensorboard_files_can_be_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    tracker = open_tracker("tensorboard", tmp_path, {})
    tracker.log({"reward_mean": 0.25}, 1)
    tracker.log({"reward_mean": 0.5}, 2)
    tracker.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = [(event.step, value.tag, value.simple_value) for event in LegacyEventFileLoader(str(file)).Load() for value in event.summary.value]
    assert found == [(1, "reward_mean", 0.25), (2, "reward_mean", 0.5)]


def test_every_metric_has_a_sentence():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.meaning.endswith(".") and metric.title[0].isupper()
    assert describe("made_up").title == "Made up"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("pass_rate", 0.256, "26%"),
        ("reward_mean", 0.314, "0.31"),
        ("approx_kl", 0.0021, "0.0021"),
        ("entropy", 1.234, "1.23"),
        ("tokens_per_s", 1234.5, "1,234"),
        ("judge_spend_usd", 0.0012, "$0.0012"),
        ("judge_spend_usd", 2.5, "$2.50"),
        ("reward_mean", None, "–"),
        ("reward_mean", float("nan"), "–"),
        ("learning_rate", 2e-5, "2.0e-05"),
    ],
)
def test_values_as_people_read_them(name, value, text):
    assert format_value(name, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_times(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("rate", "words"), [(0.71, "excellent"), (0.7, "good progress"), (0.4, "good progress"), (0.39, "more episodes needed")])
def test_the_seeds_three_steps(rate, words):
    assert verdict(rate) == words
