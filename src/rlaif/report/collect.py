"""Reads a run's logs into what the report shows, once and then only what is new.

The report lists every rollout but holds the code of only as many as fit in `max_bytes`, so that the file opens on a phone. When it overflows, every
second, then every fourth (and so on) rollout keeps its code; each episode's best and worst, and each problem's first and latest answers, go last.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from rlaif.errors import RunFailed
from rlaif.report.intervals import Interval, mean_interval, share_interval
from rlaif.runs.directory import RunDir
from rlaif.runs.files import read_lines
from rlaif.runs.rows import Row

OUTCOMES = ("passed", "failed", "broken", "unscored", "unverified")
"""passed all graded tests; ran but failed some; does not parse, crashed or tampered; nobody could say; no tests to run (AI feedback alone)."""
BANDS = ("poor", "okay", "good", "none")
_LARGEST = 1e100
"""A figure beyond it is none: nothing that is measured comes near, and its square has to be a number still."""
MAX_TEXT = 6000
"""Longest code, output or reason kept, in characters; the full text is in rollouts.jsonl."""

_PER_COMPLETION = {
    # metric: (how to read it from a row, is it a share?)
    "reward_mean": (lambda row: row.get("reward"), False),
    "pass_rate": (lambda row: _passed(row), True),
    "held_out_pass_rate": (lambda row: _flag(row.get("held_out_passed")), True),
    "completion_tokens_mean": (lambda row: len(row["token_ids"]) if row.get("token_ids") else (row.get("extra") or {}).get("tokens"), False),
    "truncated_share": (lambda row: _flag(row.get("finish_reason") == "length"), True),
    "judge_score_mean": (lambda row: (row.get("judge") or {}).get("score"), False),
    "approx_kl": (lambda row: (row.get("extra") or {}).get("approx_kl"), False),
    "ref_kl": (lambda row: (row.get("extra") or {}).get("ref_kl"), False),
    "entropy": (lambda row: (row.get("extra") or {}).get("entropy"), False),
}

_IN_UNIT = ("reward_mean", "judge_score_mean")


class Collector:
    """Call `update` as often as you like; it reads on from where it was. `max_bytes` bounds the code and details, not the list."""

    def __init__(self, run: RunDir, max_bytes: int = 24 * 2**20) -> None:
        self.run, self.max_bytes = run, max_bytes
        self._offsets = {"metrics": 0, "rollouts": 0, "problems": 0}
        self.metrics: list[Row] = []
        self.problems: list[Row] = []
        self.problem_index: dict[str, int] = {}
        self._test_index: list[dict[tuple[str, str, str], int]] = []
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("episode", "problem", "reward", "outcome", "band", "passed", "total", "judge", "held")
        }
        self.details: dict[int, str] = {}
        self.bytes = 0
        self.step = 1
        self.stats: dict[int, dict[str, tuple[float, Interval]]] = {}
        self.bands: dict[int, list[int]] = {}
        self.judge_calls = 0
        self.judge_tokens = 0
        self._pending: tuple[int, list[Row]] = (-1, [])
        self._extremes: dict[int, tuple[int, int]] = {}
        self._visits: dict[int, list[int]] = {}

    def update(self) -> bool:
        """Read what is new; True if there was anything."""
        before = tuple(self._offsets.values())
        if self.run.rollouts_path.exists() and self.run.rollouts_path.stat().st_size < self._offsets["rollouts"]:
            self.__init__(self.run, self.max_bytes)  # the run was resumed and its logs cut back: start over
        self._read("problems", self._add_problem)
        self._read("rollouts", self._add_rollout)
        self._close_episode()
        self._read("metrics", self._add_metrics)
        return before != tuple(self._offsets.values())

    def _read(self, log: str, add: Callable[[Row], object]) -> None:
        """Hand what is new in a log to `add`. Raises RunFailed for a line that no run writes (one edited by hand, or of another version)."""
        path = self.run.path / f"{log}.jsonl"
        for offset, row in read_lines(path, self._offsets[log]):
            try:
                add(row)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                why = f"the one that ends at byte {offset:,}: {type(error).__name__}: {error}"
                raise RunFailed(f"{path} holds a line that is none of a run's", why, "delete that line, or rebuild the run") from error
            self._offsets[log] = offset

    def _add_metrics(self, row: Row) -> None:
        """Keep one episode's figures. What is no finite number (a diverged run's, in a file that was not written here) is no figure."""
        self.metrics.append({"episode": int(row["episode"])} | {name: value for name, value in row.items() if _is_figure(value)})

    # -- rollouts ------------------------------------------------------------------------------------------------------------------

    def _add_problem(self, row: Row) -> int:
        self.problem_index[row["id"]] = len(self.problems)
        self.problems.append(row)
        self._test_index.append({_test_key(test): place for place, test in enumerate(row.get("tests", ()))})
        return len(self.problems) - 1

    def _add_rollout(self, row: Row) -> None:
        number = len(self.columns["episode"])
        episode = int(row["episode"])
        problem = self.problem_index.get(row["problem_id"])
        if problem is None:
            problem = self._add_problem({"id": row["problem_id"], "prompt": ""})
        tests = row.get("tests") or {}
        judge = (row.get("judge") or {}).get("score")
        values = {
            "episode": episode,
            "problem": problem,
            "reward": None if row.get("reward") is None else round(row["reward"], 3),
            "outcome": OUTCOMES.index(_outcome(row)),
            "band": BANDS.index(row.get("band") or "none"),
            "passed": tests.get("passed", 0),
            "total": tests.get("total", 0),
            "judge": None if judge is None else round(judge, 3),
            "held": 2 if row.get("held_out_passed") is None else int(row["held_out_passed"]),
        }
        for name, value in values.items():
            self.columns[name].append(value)
        if episode != self._pending[0]:
            self._close_episode()
            self._pending = (episode, [])
        self._pending[1].append(row)
        judged = row.get("judge")
        if judged and not judged.get("cached"):
            self.judge_calls += 1
            self.judge_tokens += judged.get("prompt_tokens", 0) + judged.get("completion_tokens", 0)
        detail = json.dumps(self._detail(row, problem), separators=(",", ":"), allow_nan=False)
        self.details[number] = detail
        self.bytes += len(detail)
        for other in self._remember(number, episode, problem, row.get("reward")):
            self._release(other)
        while self.bytes > self.max_bytes and self.step < 2**20:
            self._thin()

    def _detail(self, row: Row, problem: int) -> dict[str, Any]:
        """The parts of a row that only the detail view needs, under short names; tests as places in the problem's list."""
        tests, judge, quality = row.get("tests"), row.get("judge"), row.get("quality")
        detail: dict[str, Any] = {"c": _cut(row.get("code", ""))}
        if row.get("text", "").strip() != row.get("code", "").strip():
            detail["x"] = _cut(row["text"])
        if row.get("finish_reason", "eos") != "eos":
            detail["f"] = row["finish_reason"]
        if row.get("token_ids"):
            detail["n"] = len(row["token_ids"])
        if row.get("advantage") is not None:
            detail["a"] = round(row["advantage"], 4)
        if row.get("reasons"):
            detail["r"] = [_cut(reason, 600) for reason in row["reasons"]]
        if tests is not None:
            shown = {"o": tests.get("failure"), "m": _cut(tests.get("message", ""), 1500), "s": _cut(tests.get("stdout", ""), 1500)}
            detail["t"] = {key: value for key, value in shown.items() if value} | {
                "r": [self._result(result, problem) for result in tests.get("results", ())]
            }
        if judge is not None:
            detail["j"] = {key: value for key, value in judge.items() if key in ("score", "principles", "error", "refused", "judge", "cached")}
            detail["j"]["reasons"] = [_cut(reason, 1500) for reason in judge.get("reasons", ())]
        if quality is not None:
            detail["q"] = {**quality, "findings": [_cut(finding, 300) for finding in quality.get("findings", ())]}
        if hidden := (row.get("extra") or {}).get("held_out"):
            detail["h"] = [int(passed) for passed in hidden]
        if row.get("efficiency") is not None:
            detail["e"] = round(row["efficiency"], 3)
        return detail

    def _result(self, result: Row, problem: int) -> list[Any]:
        """[place in the problem's tests, or the test itself; passed; what it gave; error], the tail left out where it says nothing."""
        place: Any = self._test_index[problem].get(_test_key(result))
        if place is None:
            place = [result.get("role"), _cut(result.get("input", ""), 1500), _cut(result.get("expected", ""), 1500)]
        if result.get("passed"):
            return [place, 1]
        return [place, 0, _cut(result.get("actual"), 1500), _cut(result.get("error"), 1500)]

    # -- what to keep when there is too much ------------------------------------------------------------------------------------------

    def _remember(self, number: int, episode: int, problem: int, reward: float | None) -> set[int]:
        """Note the episode's extremes and the problem's first and latest answers; returns those that may have lost such a place."""
        visits = self._visits.setdefault(problem, [number, number])
        lost = {visits[1], number}
        visits[1] = number
        if reward is not None:
            best, worst = self._extremes.get(episode, (number, number))
            lost |= {best, worst}
            rewards = self.columns["reward"]
            self._extremes[episode] = (number if rewards[number] > rewards[best] else best, number if rewards[number] < rewards[worst] else worst)
        return lost

    def _release(self, number: int) -> None:
        """Drop an answer's code unless it has a place among the even ones or among those worth keeping."""
        if number % self.step and number in self.details and not self._worth_keeping(number):
            self.bytes -= len(self.details.pop(number))

    def _worth_keeping(self, number: int) -> bool:
        episode, problem = self.columns["episode"][number], self.columns["problem"][number]
        # Best and worst of an episode lose their place too once there are thousands of episodes.
        is_extreme = number in self._extremes.get(episode, ()) and episode % max(1, self.step // 16) == 0
        return is_extreme or number in self._visits[problem]

    def _thin(self) -> None:
        self.step *= 2
        for number in list(self.details):
            self._release(number)

    # -- figures per episode ----------------------------------------------------------------------------------------------------------

    def _close_episode(self) -> None:
        """Means and intervals of the episode read last. It may grow on the next update; then it is done again from its rows."""
        episode, rows = self._pending
        if not rows:
            return
        stats = {}
        for name, (read, is_share) in _PER_COMPLETION.items():
            groups: dict[str, list[float]] = defaultdict(list)
            for row in rows:
                value = read(row)
                if value is not None:
                    groups[row["problem_id"]].append(value)
            if groups:
                values = list(groups.values())
                stats[name] = share_interval(values) if is_share else mean_interval(values, 1.0 if name in _IN_UNIT else math.inf)
        self.stats[episode] = stats
        counts = [0] * len(BANDS)
        for row in rows:
            counts[BANDS.index(row.get("band") or "none")] += 1
        self.bands[episode] = counts


def _outcome(row: Row) -> str:
    outcome, tests = row.get("outcome"), row.get("tests") or {}
    if outcome == "policy_failure":
        return "broken"
    if outcome != "scored" or row.get("reward") is None:
        return "unscored"
    if not tests.get("total"):
        return "unverified"
    return "passed" if tests["passed"] == tests["total"] else "failed"


def _passed(row: Row) -> float | None:
    return {"passed": 1.0, "failed": 0.0, "broken": 0.0}.get(_outcome(row))


def _flag(value: bool | None) -> float | None:
    return None if value is None else float(value)


def _is_figure(value: Any) -> bool:
    # an integer may be too long for a float, and NaN fails every comparison
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _test_key(test: Row) -> tuple[str, str, str]:
    return test.get("role", ""), test.get("input", ""), test.get("expected", "")


def _cut(text: str | None, limit: int = MAX_TEXT) -> str | None:
    return text if text is None or len(text) <= limit else f"{text[:limit]}… [{len(text) - limit:,} more characters in rollouts.jsonl]"
