"""From problems and programs to feedback: run, judge, lint, time, combine; in batches, in order."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from rlaif.config import RewardConfig
from rlaif.judge.protocol import Judge, JudgeItem
from rlaif.rewards.combine import combine
from rlaif.rewards.efficiency import EfficiencyMeter
from rlaif.rewards.quality import quality_reports
from rlaif.types import Feedback, FeedbackMode, JudgeReport, Problem, QualityReport, TestReport

if TYPE_CHECKING:
    from rlaif.sandbox import Sandbox

_CHUNK = 64
"""Programs scored together by `score_stream`: what bounds its memory."""


class RewardEngine:
    """Scores programs. `sandbox` may be None in mode `ai`, `judge` may be None where tests grade everything.

    quality_hook: code -> quality in [0, 1], in place of our static quality (the learner's own). efficiency=False leaves timing out.
    watch_share: None, and the judge reads every program that ran and orders those that fail. A share in [0, 1], and of those that fail it
    reads only that many, for the monitor: no failing program's reward depends on it. In training most programs fail, and a judge's time is
    better spent where its word counts.
    """

    def __init__(
        self,
        sandbox: Sandbox | Any | None,
        judge: Judge | None,
        mode: FeedbackMode,
        quality_hook: Callable[[str], float] | None = None,
        *,
        efficiency: bool = True,
        watch_share: float | None = None,
    ) -> None:
        self.watch_share = watch_share
        self.sandbox, self.judge, self.quality_hook = sandbox, judge, quality_hook
        self.mode: FeedbackMode = mode
        self.meter = EfficiencyMeter(sandbox) if efficiency and sandbox is not None else None

    def score(self, problems: Sequence[Problem], codes: Sequence[str]) -> list[Feedback]:
        """One feedback per program, in order; `problems[i]` is what `codes[i]` answers."""
        pairs = list(zip(problems, codes, strict=True))
        with ThreadPoolExecutor(1, thread_name_prefix="lint") as pool:
            linted = pool.submit(self._quality, codes)  # a process of its own, so it overlaps with the sandbox
            tests = self._tests(pairs)
            quality = linted.result()
        judged = self._judged(pairs, tests)
        timed = self._efficiency(pairs, tests)
        return [self._combined(pairs[i][0], tests[i], judged[i], quality[i], timed[i]) for i in range(len(pairs))]

    def _combined(
        self, problem: Problem, tests: TestReport | None, judged: JudgeReport | None, quality: QualityReport | None, efficiency: float | None
    ) -> Feedback:
        if self.watch_share is None or self.mode != "hybrid" or tests is None or tests.all_passed:
            return combine(problem, tests, judged, quality, efficiency, self.mode)
        return replace(combine(problem, tests, None, quality, efficiency, self.mode), judge=judged)

    def score_stream(self, pairs: Iterable[tuple[Problem, str]]) -> Iterator[Feedback]:
        """Feedback for any number of (problem, code), in order and in constant memory."""
        pairs = iter(pairs)
        while chunk := list(islice(pairs, _CHUNK)):
            yield from self.score([problem for problem, _ in chunk], [code for _, code in chunk])

    def _quality(self, codes: Sequence[str]) -> list[QualityReport]:
        reports = quality_reports(codes)
        if self.quality_hook is None:
            return reports
        hook = self.quality_hook
        return [replace(report, score=min(1.0, max(0.0, float(hook(code))))) for code, report in zip(codes, reports, strict=True)]

    def _tests(self, pairs: list[tuple[Problem, str]]) -> list[TestReport | None]:
        """Reports of the graded tests; None where there are none to run, or the mode runs none."""
        reports: list[TestReport | None] = [None] * len(pairs)
        if self.mode == "ai" or self.sandbox is None:
            return reports
        from rlaif.sandbox import Job

        wanted = [index for index, (problem, _) in enumerate(pairs) if problem.tests_of("graded")]
        jobs = (Job(pairs[index][0], pairs[index][1]) for index in wanted)
        for index, report in zip(wanted, self.sandbox.run_many(jobs), strict=True):
            reports[index] = report
        return reports

    def _efficiency(self, pairs: list[tuple[Problem, str]], tests: list[TestReport | None]) -> list[float | None]:
        """Efficiency of the programs that passed; each distinct one is timed once."""
        found: list[float | None] = [None] * len(pairs)
        if self.meter is None:
            return found
        wanted = [index for index, report in enumerate(tests) if report is not None and report.all_passed]
        meter, unique = self.meter, {(pairs[index][0].id, pairs[index][1]): (*pairs[index], tests[index].cpu_s) for index in wanted}  # type: ignore[union-attr]
        with ThreadPoolExecutor(_workers(self.sandbox), thread_name_prefix="timing") as pool:
            times = dict(zip(unique, pool.map(lambda run: meter.efficiency(*run), unique.values()), strict=True))
        for index in wanted:
            found[index] = times[(pairs[index][0].id, pairs[index][1])]
        return found

    def _judged(self, pairs: list[tuple[Problem, str]], tests: list[TestReport | None]) -> list[JudgeReport | None]:
        """Judgements where they can matter: not in mode `execution`, and not for programs whose reward the sandbox settled."""
        reports: list[JudgeReport | None] = [None] * len(pairs)
        if self.judge is None or self.mode == "execution":
            return reports
        wanted = [
            index for index, report in enumerate(tests) if report is None or (report.outcome == "scored" and self._read(report, pairs[index][1]))
        ]
        for index, report in zip(wanted, self.judge.score([JudgeItem(*pairs[index]) for index in wanted]), strict=True):
            reports[index] = report
        return reports

    def _read(self, report: TestReport, code: str) -> bool:
        """Whether the judge reads this program. Which failing ones are watched depends on the code alone, so that a resumed run picks the same."""
        if self.watch_share is None or self.mode != "hybrid" or report.all_passed:
            return True
        return zlib.crc32(code.encode("utf-8", "surrogatepass")) / 2**32 < self.watch_share


def make_engine(config: RewardConfig, stack: ExitStack) -> RewardEngine:
    """The sandbox, the judge and the formula, as the settings want them; torch is loaded only if a judge needs it."""
    from rlaif.sandbox import Sandbox

    judge = None
    if config.feedback != "execution" and config.judge.kind != "none":
        from rlaif.judge import make_judge

        judge = make_judge(config.judge)
    sandbox = None if config.feedback == "ai" else stack.enter_context(Sandbox(config.sandbox))
    return RewardEngine(sandbox, judge, config.feedback)


def _workers(sandbox: Any) -> int:
    return getattr(getattr(sandbox, "config", None), "workers", 1)
