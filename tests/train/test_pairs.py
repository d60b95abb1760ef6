"""Collecting preference pairs: tests label first, the judge where they tie, held-out tests never; and nothing is lost by a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from rlaif.config import JudgeConfig
from rlaif.errors import Interrupted, ProblemFileError, UsageError
from rlaif.train import collect_pairs as module
from rlaif.train.collect_pairs import collect_pairs
from rlaif.train.pairing import Answer, agreement, label_by_execution, make_pairs
from rlaif.train.prefer_config import CollectConfig
from rlaif.train.preference_data import FILE, Pair, problems_of, read_pairs
from rlaif.types import Completion, Feedback, Problem, TestCase, TestReport, TestResult
from tests.train.preference_helpers import LongerIsBetter, fake_generate, silent

TASK = Problem("p1", "Add 1", entry_point="f", signature="def f(n):")


def answer(code: str, passed: int | None, total: int = 4, *, reward: float | None = None, held: bool | None = None) -> Answer:
    """An answer that passes `passed` of `total` graded tests; None: the problem has none."""
    if passed is None:
        return Answer(Completion("p1", code, code), Feedback(None, "invalid_input"), held)
    results = tuple(TestResult(TestCase("graded", f"f({n})", "1"), n < passed) for n in range(total))
    report = TestReport("scored", results)
    reward = reward if reward is not None else 0.9 if passed == total else 0.1 + 0.15 * passed / total
    return Answer(Completion("p1", code, code), Feedback(reward, "scored", tests=report), held)


def pairs_of(answers, judge=None, most=3, most_judged=1):
    return make_pairs(TASK, answers, judge, object(), most=most, most_judged=most_judged, number=1, rng=random.Random(0))


def test_tests_decide_before_any_judge():
    right, wrong, half = answer("right", 4), answer("wrong", 0), answer("half", 2)
    assert label_by_execution(right, wrong) == 1.0 and label_by_execution(wrong, right) == 0.0
    # both fail: 0.175 against 0.1 is a quarter of the band of failing programs, so 0.5 + 0.5 * 0.25
    assert label_by_execution(half, wrong) == pytest.approx(0.625)
    assert label_by_execution(right, answer("also right", 4)) is None
    assert label_by_execution(wrong, answer("wrong too", 0)) is None
    assert label_by_execution(right, answer("untested", None)) is None
    judge = LongerIsBetter()
    made = pairs_of([right, wrong, half], judge)
    assert not judge.asked and {pair.source for pair in made.pairs} == {"execution"}
    assert [(pair.chosen_code, pair.rejected_code) for pair in made.pairs[:2] if pair.label_probability == 1.0]
    assert made.pairs[-1].chosen_code == "half" and made.pairs[-1].label_probability == pytest.approx(0.625)


def test_ties_go_to_the_judge_with_a_soft_label():
    judge = LongerIsBetter()
    made = pairs_of([answer("short", 4), answer("a longer one", 4)], judge)
    (pair,) = made.pairs
    assert (pair.chosen_code, pair.label_probability, pair.source) == ("a longer one", 0.8, "judge")
    assert judge.asked[0][1] != "correctness", "tests have said already that both are correct"
    judge = LongerIsBetter()
    assert pairs_of([answer("x", 0), answer("y y", 0)], judge).pairs[0].principle == "correctness"


def test_a_pair_on_which_the_judge_contradicts_itself_is_dropped_and_counted():
    made = pairs_of([answer("x", 0), answer("y y", 0)], LongerIsBetter(frozenset({"correctness"})))
    assert made.pairs == [] and made.dropped == {"order_inconsistent": 1}
    assert pairs_of([answer("x", 0), answer("y y", 0)], None).dropped == {"tie_without_judge": 1}


def test_a_broken_sandbox_is_nobodys_wrong_answer():
    broken = Answer(Completion("p1", "broken", "broken"), Feedback(None, "infra_failure"))
    made = pairs_of([broken, answer("right", 4)], LongerIsBetter())
    assert made.pairs == [] and made.dropped == {"unscored": 1}


def test_equal_programs_make_no_pair():
    assert pairs_of([answer("same", 4), answer("same", 4)], LongerIsBetter()).pairs == []


def test_held_out_tests_measure_labels_and_never_choose_one():
    def made(held: bool):
        return pairs_of([answer("a longer one", 4, held=held), answer("short", 4, held=not held), answer("no", 0, held=held)], LongerIsBetter())

    one, two = made(True), made(False)
    labels = [[(pair.chosen_code, pair.rejected_code, pair.label_probability) for pair in some.pairs] for some in (one, two)]
    assert labels[0] == labels[1]
    # of the judge's pair exactly one side passes the held-out tests: the chosen one, or the other
    assert agreement(one.pairs)["judge"]["agreement"] == 1.0 and agreement(two.pairs)["judge"]["agreement"] == 0.0


# -- whole runs ----------------------------------------------------------------------------------------------------------------------


def settings(model: Path, problems: Path, output: Path, **changes) -> CollectConfig:
    values = {"model": str(model), "problems": str(problems), "output_dir": output, "rounds": 4, "batch_size": 2, "group_size": 4}
    values |= {"dtype": "float32", "threads": 1, "judge": JudgeConfig(kind="none"), "seed": 3}
    return CollectConfig(**{**values, **changes})


def run_fake(model: Path, problems: Path, output: Path, judge=None, **changes):
    """Collect with a policy that can write, in this process or in a child."""
    real = module.generate
    module.generate = fake_generate
    try:
        return collect_pairs(settings(model, problems, output, **changes), console=silent(), judge=judge or LongerIsBetter())
    finally:
        module.generate = real


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_collection_end_to_end(tiny_llama, problem_file, tmp_path):
    done = run_fake(tiny_llama, problem_file, tmp_path / "run")
    rows = rows_of(done.path)
    assert rows and done.summary["pairs"] == len(rows) and {row["source"] for row in rows} == {"execution", "judge"}
    for row in rows:
        assert row["prompt"][-1]["role"] == "user" and row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert 0.5 < row["label_probability"] <= 1 and row["chosen_code"] in row["chosen"][0]["content"]
        if row["source"] == "execution" and row["label_probability"] == 1.0:
            assert row["chosen_graded"] and not row["rejected_graded"]
        if row["source"] == "judge":
            assert row["chosen_graded"] == row["rejected_graded"] and row["principle"]
    said = done.summary["agreement_with_held_out_tests"]["execution"]
    assert said["told_apart_by_held_out_tests"] > 0 and said["agreement"] == 1.0
    assert done.summary["samples"] == 4 * 2 * 4
    for name in ("config.json", "env.json", "metrics.jsonl", "rollouts.jsonl", "problems.jsonl", "summary.json"):
        assert (done.path / name).exists(), name
    assert json.loads((done.path / "status.json").read_text())["state"] == "done"
    problems = problems_of(read_pairs(done.file), done.file, None)
    assert all(problems[pair.problem_id].tests for pair in read_pairs(done.file)), "the run's own problems are found again"


def test_the_file_is_what_hugging_face_trainers_read(tiny_llama, problem_file, tmp_path):
    datasets = pytest.importorskip("datasets")
    done = run_fake(tiny_llama, problem_file, tmp_path / "run")
    loaded = datasets.Dataset.from_json(str(done.file), cache_dir=str(tmp_path / "cache"))
    trl = pytest.importorskip("trl.data_utils")
    assert trl.is_conversational(loaded[0]) and {"prompt", "chosen", "rejected"} <= set(loaded.column_names)


def test_a_tiny_model_without_a_chat_template_gives_texts(tmp_path, problem_file):
    from tests.tiny_models import make_tiny

    done = run_fake(make_tiny("gpt2", tmp_path / "gpt2"), problem_file, tmp_path / "run", rounds=1)
    assert all(isinstance(row[name], str) for row in rows_of(done.path) for name in ("prompt", "chosen", "rejected"))


def test_a_real_policy_is_sampled(tiny_llama, problem_file, tmp_path):
    done = collect_pairs(settings(tiny_llama, problem_file, tmp_path / "run", rounds=1, max_new_tokens=6), console=silent())
    assert done.summary["samples"] == 8 and len((done.path / "rollouts.jsonl").read_text().splitlines()) == 8


def test_killed_at_random_moments_it_ends_with_the_same_pairs(tiny_llama, problem_file, tmp_path):
    whole = rows_of(run_fake(tiny_llama, problem_file, tmp_path / "whole").path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlaif.train.collect_pairs", "tests.train.test_pairs"])
    killed, journal = tmp_path / "killed", tmp_path / "killed" / "journal.jsonl"
    for rounds in (1, 2):  # SIGKILL once that many rounds are journaled, wherever the next one is by then
        process = context.Process(target=run_fake, args=(tiny_llama, problem_file, killed), kwargs={"resume": killed.exists()})
        process.start()
        while process.is_alive() and not (journal.exists() and journal.read_bytes().count(b"\n") >= rounds):
            time.sleep(0.002)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    with journal.open("ab") as file:
        file.write(b'{"round": 99, "torn')
    assert rows_of(run_fake(tiny_llama, problem_file, killed, resume=True).path) == whole
    rollouts = (killed / "rollouts.jsonl").read_text().splitlines()
    assert len(rollouts) == 4 * 8 and len((killed / "metrics.jsonl").read_text().splitlines()) == 4


def test_ctrl_c_keeps_whole_rounds_and_more_rounds_can_be_added(tiny_llama, problem_file, tmp_path):
    whole = rows_of(run_fake(tiny_llama, problem_file, tmp_path / "whole").path)

    class Interrupting(LongerIsBetter):
        def compare(self, problem, first, second, principle):
            if len(self.asked) == 3:
                signal.raise_signal(signal.SIGINT)
            return super().compare(problem, first, second, principle)

    folder = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"Everything up to round \d is saved") as caught:
        run_fake(tiny_llama, problem_file, folder, judge=Interrupting())
    assert caught.value.exit_code == 130 and json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    run_fake(tiny_llama, problem_file, folder, rounds=3, resume=True)
    assert rows_of(folder) == [row for row in whole if row["round"] <= 3]
    run_fake(tiny_llama, problem_file, folder, rounds=4, resume=True)
    assert rows_of(folder) == whole


def test_resuming_refuses_other_settings_and_a_new_run_refuses_the_folder(tiny_llama, problem_file, tmp_path):
    folder = tmp_path / "run"
    run_fake(tiny_llama, problem_file, folder, rounds=1)
    with pytest.raises(UsageError, match="another group_size"):
        run_fake(tiny_llama, problem_file, folder, group_size=3, resume=True)
    with pytest.raises(UsageError, match="--resume"):
        run_fake(tiny_llama, problem_file, folder)
    with pytest.raises(UsageError, match="--batch-size 3"):
        run_fake(tiny_llama, problem_file, tmp_path / "other", batch_size=9)


GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[1]", "not a JSON object"),
        ({"chosen": "a", "rejected": "b"}, "explicit prompt"),
        (GOOD | {"rejected": 3}, "field 'rejected'"),
        (GOOD | {"chosen": [{"role": "assistant", "content": "a"}]}, "all lists of messages"),
        (GOOD | {"label_probability": 0.2}, "label_probability"),
        (GOOD | {"source": "rumour"}, "'rumour'"),
    ],
)
def test_a_bad_preference_file_is_named_with_its_line(line, words, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(ProblemFileError, match=words) as caught:
        read_pairs(path)
    assert "line 2" in str(caught.value)


def test_anyones_file_is_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(GOOD | {"chosen": "Here:\n```python\nx = 1\n```\n", "extra": 1}) + "\n\n")
    (pair,) = read_pairs(path)
    assert pair.chosen_code == "x = 1\n" and pair.label_probability == 1.0 and pair.problem_id
    assert isinstance(pair, Pair) and problems_of([pair], path, None)[pair.problem_id].prompt == "p"
