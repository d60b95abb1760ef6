"""What goes into the page: figures checked by hand, nothing hostile unescaped, nothing loaded, little read twice."""

import io
import json
import math
import random
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlaif.errors import RunFailed, UsageError
from rlaif.report import ReportWriter, build_report, compare_report
from rlaif.report.collect import Collector
from rlaif.report.intervals import clustered_error, mean_interval, share_interval, t_975, trend_intervals, wilson
from rlaif.report.page import raw_data_block
from rlaif.runs import RunDir
from tests.synthetic_run import HOSTILE, evaluation, make_run, problems, rollout


class Page(HTMLParser):
    """Tags and scripts of a page, as a browser's parser would cut them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.blocks: dict[str, str] = {}
        self.scripts: list[str] = []
        self.text = ""
        self._in: dict | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in is None:
            self.text += data
        elif self._in.get("type") == "application/json":
            self.blocks[self._in["id"]] = self.blocks.get(self._in["id"], "") + data
        else:
            self.scripts.append(data)

    @property
    def data(self) -> dict:
        return json.loads(self.blocks["report-data"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("report") / "a run", episodes=8)


@pytest.fixture(scope="module")
def page(run: RunDir) -> Page:
    return Page(build_report(run.path).read_text(encoding="utf-8"))


def test_one_file_that_loads_nothing(page, run):
    assert [attrs for tag, attrs in page.tags if "src" in attrs] == []
    links = [attrs["href"] for tag, attrs in page.tags if "href" in attrs]
    assert all(href.startswith(("#", "data:")) for href in links)
    text = (run.path / "report.html").read_text(encoding="utf-8")
    outside = set(re.findall(r"https?://[^\s'\"<>)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert outside == set()
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.split("style-src")[0], "only the one script, by its hash"


def test_hostile_code_stays_data(page, run):
    assert len(page.scripts) == 1 and "owned" not in page.scripts[0]
    assert not [tag for tag, attrs in page.tags if tag == "img" or any(name.startswith("on") for name in attrs)]
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in text and "<script>document" not in text and "<!--<script>" not in text
    chunk = json.loads(page.blocks["chunk-0"])
    (hostile,) = [detail for detail in chunk.values() if HOSTILE in detail["c"]]
    assert HOSTILE in hostile["r"][0] and hostile["j"]["reasons"][0].startswith(HOSTILE)


@given(
    st.recursive(
        st.text() | st.sampled_from(["</script>", "<!--", "]]>", "\u2028", HOSTILE]),
        lambda inner: st.dictionaries(st.text(), inner, max_size=3) | st.lists(inner, max_size=3),
    )
)
def test_no_json_can_leave_its_block(value):
    block = str(raw_data_block(json.dumps(value), "x"))
    assert block.count("<") == 2 and block.endswith("</script>")
    assert json.loads(block[block.index(">") + 1 : -len("</script>")]) == value


def test_the_list_holds_every_rollout_with_the_run_s_own_figures(page, run):
    rows, columns = list(run.iter_rollouts()), page.data["columns"]
    assert len(rows) == len(columns["episode"]) == 8 * 32 + 1
    names = [problem["id"] for problem in page.data["problems"]]
    for number, row in enumerate(rows):
        assert columns["episode"][number] == row["episode"]
        assert names[columns["problem"][number]] == row["problem_id"]
        assert columns["reward"][number] == (None if row["reward"] is None else round(row["reward"], 3))
        assert (columns["passed"][number], columns["total"][number]) == (row["tests"]["passed"], row["tests"]["total"])
    details = {}
    for name, text in page.blocks.items():
        if name.startswith("chunk-"):
            details |= json.loads(text)
    assert {int(number) for number in details} == set(range(len(rows)))
    assert all(details[str(number)]["c"] == row["code"] for number, row in enumerate(rows))


def test_each_test_with_expected_and_actual(page, run):
    rows = list(run.iter_rollouts())
    number = next(i for i, row in enumerate(rows) if row["tests"] and row["tests"]["total"] > row["tests"]["passed"] > 0)
    chunk = json.loads(page.blocks[f"chunk-{number // page.data['chunk']}"])
    problem = page.data["problems"][page.data["columns"]["problem"][number]]
    shown = []
    for place, passed, *rest in chunk[str(number)]["t"]["r"]:
        role, given_input, expected, _ = problem["tests"][place]
        shown.append((role, given_input, expected, bool(passed), rest[0] if rest else None, rest[1] if rest else None))
    assert shown == [
        (r["role"], r["input"], r["expected"], r["passed"], None if r["passed"] else r.get("actual"), None if r["passed"] else r.get("error"))
        for r in rows[number]["tests"]["results"]
    ]


def test_outcomes_by_hand(tmp_path):
    base = {
        "episode": 1,
        "problem_id": "p",
        "code": "",
        "text": "",
        "reward": 0.5,
        "outcome": "scored",
        "tests": {"passed": 1, "total": 2, "results": []},
    }
    rows = [
        {**base, "tests": {"passed": 2, "total": 2, "results": []}, "judge": {"score": 0.2}, "held_out_passed": True},
        {**base, "judge": {"score": 0.9}, "held_out_passed": False},
        {**base, "outcome": "policy_failure"},
        {**base, "outcome": "infra_failure", "reward": None},
        {**base, "tests": None},
        {**base, "tests": {"passed": 2, "total": 2, "results": []}, "judge": {"score": 0.8}, "held_out_passed": False},
    ]
    run = RunDir.create(tmp_path / "a")
    run.rollouts_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    collector = Collector(run)
    collector.update()
    assert collector.columns["outcome"] == [0, 1, 2, 3, 4, 0]
    assert collector.columns["held"] == [1, 0, 2, 2, 2, 0]
    assert collector.stats[1]["pass_rate"][0] == pytest.approx(2 / 4), "unscored and unverified answers leave the rate"
    assert collector.stats[1]["reward_mean"] == (0.5, None), "one problem has no interval"


def test_curves_have_intervals_around_their_means(page):
    series = page.data["series"]
    assert series["episodes"] == list(range(1, 9))
    for name in ("reward_mean", "pass_rate", "approx_kl", "entropy", "completion_tokens_mean", "judge_auroc"):
        assert name in page.data["charts"], name
        assert all(low <= high for low, high in zip(series["low"][name], series["high"][name], strict=True)), name
    for name in ("reward_mean", "pass_rate", "judge_auroc"):
        for low, value, high in zip(series["low"][name], series["values"][name], series["high"][name], strict=True):
            assert 0 <= low <= value <= high <= 1


def test_before_and_after_are_the_harness_s_own_numbers(page):
    from rlaif.evals import compare

    whole = compare(evaluation(0.24), evaluation(0.45)).overall
    assert f"{100 * whole.before:.1f}%" in page.text and f"{100 * whole.after:.1f}%" in page.text
    assert f"{100 * whole.difference.low:+.1f} to {100 * whole.difference.high:+.1f} points" in page.text
    rl = compare(evaluation(0.31), evaluation(0.45)).overall
    assert f"RL {100 * rl.difference.value:+.1f} points" in re.sub(r"\s+", " ", page.text), "what the warm start gave and what RL gave stand apart"


def test_cost_is_the_sum_of_the_episodes(page, run):
    rows = list(run.iter_metrics())
    assert f"{sum(row['judge_calls'] for row in rows):,}" in page.text
    assert f"{len(list(run.iter_rollouts())):,}" in page.text
    assert "Alarms" in page.text and "judge drift" in page.text


def test_an_evaluation_of_another_kind_does_not_stop_the_report(tmp_path):
    run = make_run(tmp_path / "a", episodes=1)
    run.write_evaluation("before", {"something": "else"})
    (run.path / "after.json").write_text("[1, 2")
    assert "held-out" in build_report(run.path).read_text()


def test_figures_that_are_no_numbers_leave_a_page_that_works(tmp_path):
    run = make_run(tmp_path / "a", episodes=6)
    rows = [row | {"entropy": 1e300, "grad_norm": 10**400, "reward_mean": math.nan, "note": HOSTILE} for row in run.iter_metrics()]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.rollouts_path.write_text(re.sub(r'"reward": [0-9.]+', '"reward": NaN', run.rollouts_path.read_text(), count=1))
    for name, text in (
        ("end.json", '{"eval_s": 1, "cup_of_tea": 2}'),
        ("status.json", "[1]"),
        ("overlap.json", '{"evaluation": 1, "contaminated": null}'),
    ):
        (run.path / name).write_text(text)
    run.alarms_path.write_text('{"episode": 2}\n[1]\n')
    data = Page(build_report(run.path).read_text()).data
    assert len(data["series"]["episodes"]) == 6 and "grad_norm" not in data["series"]["values"]
    compare_report(run.path, make_run(tmp_path / "b", episodes=1).path, tmp_path / "c.html")


@pytest.mark.parametrize(
    ("log", "line"), [("metrics", "[1]"), ("rollouts", '{"episode": 1}'), ("rollouts", '{"episode": 1, "problem_id": "p", "code": 5}')]
)
def test_a_line_that_no_run_writes_is_named(tmp_path, log, line):
    run = make_run(tmp_path / "a", episodes=1)
    with open(run.path / f"{log}.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(RunFailed, match=rf"{log}\.jsonl holds a line that is none of a run's"):
        build_report(run.path)


def test_what_hides_or_reorders_text_is_shown_by_its_code_point(tmp_path):
    run = make_run(tmp_path / "a", episodes=1)
    run.log_alarm(1, "drift", "\u202eevil\x1b[2J <b>naïve 日本</b>")
    run.write_config({**run.read_config(), "model": "mo\u200bdel"})
    other = make_run(tmp_path / "b\u202e", episodes=1)
    for path in (build_report(run.path), compare_report(run.path, other.path, tmp_path / "c.html")):
        text = path.read_text()
        assert not re.search("[\u202e\u200b\x1b]", text)
    page = Page(build_report(run.path).read_text())
    assert "\\u202eevil\\x1b[2J <b>naïve 日本</b>" in page.text and "mo\\u200bdel" in page.text


def test_a_tile_is_coloured_only_for_a_change_that_it_shows():
    from rlaif.report.build import _tiles

    tiles = _tiles({"values": {"reward_mean": [0.561, 0.562], "pass_rate": [0.5, 0.6], "judge_auroc": [0.6, 0.5]}}, None)
    assert [tile["change"] for tile in tiles] == ["flat", "better", "worse"]


def test_a_run_of_its_first_second(tmp_path):
    run = RunDir.create(tmp_path / "a")
    page = Page(build_report(run.path).read_text())
    assert "No episode has finished yet" in page.text and page.data["columns"]["episode"] == []


def test_refreshes_only_while_it_runs(tmp_path):
    run = make_run(tmp_path / "a", episodes=3, total=9, state="running")
    text = build_report(run.path).read_text()
    assert '<noscript><meta http-equiv="refresh"' in text and Page(text).data["run"]["running"]
    run.write_status("done", 9, 9)
    text = build_report(run.path).read_text()
    assert 'http-equiv="refresh"' not in text and not Page(text).data["run"]["running"]


def test_growing_gives_the_same_page_as_reading_at_once(tmp_path):
    source = make_run(tmp_path / "whole", episodes=4)
    grown = RunDir.create(tmp_path / "grown")
    collector = Collector(grown)
    grown.problems_path.write_bytes(source.problems_path.read_bytes())
    data = source.rollouts_path.read_bytes()
    for cut in (0, 1000, len(data) // 3, len(data) // 2, len(data)):  # in mid-line and in mid-episode
        grown.rollouts_path.write_bytes(data[:cut])
        collector.update()
    at_once = Collector(source)
    at_once.update()
    assert collector.columns == at_once.columns and collector.details == at_once.details
    assert collector.stats == at_once.stats and collector.bands == at_once.bands
    assert collector.update() is False


def test_a_run_cut_back_is_read_again(tmp_path):
    run = make_run(tmp_path / "a", episodes=4)
    writer = ReportWriter(run)
    writer.write()
    run.truncate_to(2)
    writer.write()
    assert set(Page(run.report_path.read_text()).data["columns"]["episode"]) == {1, 2}


def test_too_much_code_is_thinned_and_said_so(tmp_path):
    run = make_run(tmp_path / "a", episodes=30, hostile=False)
    text = build_report(run.path, max_bytes=60_000).read_text()
    page = Page(text)
    chunks = [json.loads(block) for name, block in page.blocks.items() if name.startswith("chunk-")]
    kept = {int(number) for chunk in chunks for number in chunk}
    total = len(page.data["columns"]["episode"])
    assert total == 30 * 32, "every answer is listed"
    assert 20 < len(kept) < total and sum(len(block) for name, block in page.blocks.items() if name.startswith("chunk-")) < 70_000
    assert page.data["kept"] == len(kept) and f"All {total} are listed; {len(kept)} of them carry their code here" in page.text
    last = {}
    for number, problem in enumerate(page.data["columns"]["problem"]):
        last[problem] = number
    assert set(last.values()) <= kept, "each problem's latest answer stays, for early and late side by side"


def test_fifty_thousand_rollouts_are_read_in_seconds(tmp_path):
    rng = random.Random(0)
    tasks = problems(40)
    run = RunDir.create(tmp_path / "a")
    rows = [rollout(rng, 1, *task, 0.5) for task in tasks for _ in range(25)]
    run.log_rollouts(rows)
    template = run.rollouts_path.read_bytes()
    with open(run.rollouts_path, "wb") as file:
        for episode in range(1, 51):
            file.write(template.replace(b'"episode": 1,', b'"episode": %d,' % episode))
    began = time.process_time()
    path = build_report(run.path)
    taken = time.process_time() - began
    assert len(Page(path.read_text()).data["columns"]["episode"]) == 50_000
    assert path.stat().st_size < 32 * 2**20
    assert taken < 30, f"{taken:.1f} s"


def test_live_report_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a", episodes=1)
    clock = [100.0]
    monkeypatch.setattr("rlaif.report.build.time.monotonic", lambda: clock[0])
    writer = ReportWriter(run, share=0.1)
    written = []

    def write():
        written.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr(writer, "write", write)
    for _ in range(30):
        assert writer.update() is None
        clock[0] += 1.0
    assert len(written) == 3, "a report of one second every ten"


def test_a_report_that_fails_does_not_end_the_run(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a", episodes=1)
    writer = ReportWriter(run)

    def full():
        raise RunFailed("No space left to write report.html")

    monkeypatch.setattr(writer, "write", full)
    assert "No space left" in writer.update()
    assert writer.update() is None, "and it does not say so at every episode"


def test_nor_does_one_that_fails_at_its_end(tmp_path, monkeypatch):
    from rlaif.cli.train import _Reporter
    from rlaif.runs import Console

    def broken(self):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(ReportWriter, "write", broken)
    said = io.StringIO()
    assert _Reporter(Console(file=said)).build(make_run(tmp_path / "a", episodes=1).path) is None
    assert "could not be written: oops" in said.getvalue()


def test_no_run_there(tmp_path):
    with pytest.raises(UsageError, match="No run at"):
        build_report(tmp_path / "nowhere")


def test_torch_is_never_loaded(run):
    loaded = "{'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    code = f"import sys; from rlaif.report import build_report, compare_report; build_report({str(run.path)!r}); assert not {loaded}"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- comparing -------------------------------------------------------------------------------------------------------------------------


def test_comparison_of_two_runs(run, tmp_path):
    other = make_run(tmp_path / "b <b>", episodes=5, seed=3)
    other.write_config({**other.read_config(), "algo": "grpo", "output_dir": "elsewhere"})
    other.write_evaluation("after", evaluation(0.60).to_dict())
    path = compare_report(run.path, other.path, tmp_path / "out.html")
    page = Page(path.read_text())
    assert page.data["names"] == ["a run", "b <b>"] and "<b>" not in [tag for tag, _ in page.tags]
    assert [len(one["episodes"]) for one in page.data["runs"]] == [8, 5]
    text = re.sub(r"\s+", " ", page.text)
    assert "algoppogrpo" in text and "elsewhere" not in text
    from rlaif.evals import compare

    whole = compare(evaluation(0.45), evaluation(0.60)).overall
    assert f"{100 * whole.difference.value:+.1f} points" in text


def test_comparison_with_itself_or_with_nothing(run, tmp_path):
    with pytest.raises(UsageError, match="with itself"):
        compare_report(run.path, Path(run.path, "..", run.path.name))
    with pytest.raises(UsageError, match="No run at"):
        compare_report(run.path, tmp_path / "nowhere")


# -- intervals -------------------------------------------------------------------------------------------------------------------------


def test_clustered_error_by_hand():
    # two problems, two answers each: means 1 and 0, so the two residual sums are 1 and -1: sqrt(2 * 2/1) / 4 = 0.5
    assert clustered_error([[1.0, 1.0], [0.0, 0.0]]) == (0.5, 0.5)
    # no difference between problems: all the spread is within them, and the error is 0
    assert clustered_error([[1.0, 0.0], [0.0, 1.0]]) == (0.5, 0.0)
    assert clustered_error([[1.0, 0.0, 1.0]]) == (pytest.approx(2 / 3), None)


def test_equal_clusters_agree_with_the_t_interval_of_their_means():
    rng = random.Random(0)
    groups = [[rng.random() for _ in range(5)] for _ in range(12)]
    means = [sum(group) / 5 for group in groups]
    low, high = stats.t.interval(0.95, 11, loc=sum(means) / 12, scale=stats.sem(means))
    assert mean_interval(groups)[1] == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("degrees", [1, 2, 7, 20, 21, 30, 60, 200, 5000])
def test_t_quantile(degrees):
    assert t_975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=0.006)


def test_wilson_against_scipy():
    low, high = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert wilson(0.35, 20) == pytest.approx((low, high), abs=1e-4)


def test_nought_of_many_is_not_certain():
    _, (low, high) = share_interval([[0.0] * 8] * 4)
    assert low == 0 and high == pytest.approx(wilson(0, 4)[1]) and high > 0.4, "four problems, not 32 answers"


def test_trend_interval_against_least_squares():
    rng = random.Random(2)
    values = [0.3 * x + rng.gauss(0, 1) for x in range(7)]
    fit = stats.linregress(range(7), values)
    residual = math.sqrt(sum((y - fit.intercept - fit.slope * x) ** 2 for x, y in enumerate(values)) / 5)
    margin = stats.t.ppf(0.975, 5) * residual * math.sqrt(1 / 7 + (6 - 3) ** 2 / 28)
    assert trend_intervals(values)[6] == pytest.approx((fit.intercept + 6 * fit.slope - margin, fit.intercept + 6 * fit.slope + margin), abs=1e-3)
    assert trend_intervals([1.0] * 4) == [None] * 4
    assert trend_intervals([1.0, None, 1.0, 1.0, 1.0, 1.0])[1] is None


def test_figures_without_one_per_answer_get_the_interval_of_their_course(tmp_path):
    run = make_run(tmp_path / "a", episodes=8)
    run.rollouts_path.write_text("".join(json.dumps({**row, "extra": {}}) + "\n" for row in run.iter_rollouts()))
    series = Page(build_report(run.path).read_text()).data["series"]
    assert {"approx_kl", "entropy"} <= set(series["trends"]) and "reward_mean" not in series["trends"]
    assert all(low is not None for low in series["low"]["entropy"])


def test_intervals_cover():
    """Of 300 experiments with problems of different difficulty, about 95% of the intervals hold the truth."""
    rng = random.Random(1)
    hits = 0
    for _ in range(300):
        rates = [rng.random() for _ in range(10)]
        groups = [[float(rng.random() < rate) for _ in range(8)] for rate in rates]
        low, high = share_interval(groups)[1]
        hits += low <= 0.5 <= high
    assert 0.91 <= hits / 300 <= 0.99 and math.isfinite(low)
