"""The nouns of the system: what flows from a problem to a reward. Frozen, JSON-friendly, and free of torch.

Times are in seconds (`_s`), rewards in [0, 1]. `None` in a score or a reward means "nobody could say", never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Role = Literal["shown", "graded", "held_out"]
"""`shown`: in the prompt, never scored. `graded`: the reward, never shown. `held_out`: monitor and evaluation, never in a reward."""

Form = Literal["call", "code", "stdio"]
"""`call`: statements ending in an expression whose value is compared with a literal. `code`: a module of asserts, or one that
defines `check(candidate)`. `stdio`: text on standard input, text expected on standard output."""

Outcome = Literal["scored", "policy_failure", "infra_failure", "invalid_input"]
Band = Literal["poor", "okay", "good"]
FeedbackMode = Literal["hybrid", "ai", "execution"]
Difficulty = Literal["intro", "easy", "medium", "hard"]
"""intro: a line or two, within reach of a model of a hundred million weights; the others as competitions use the words."""
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)
Split = Literal["train", "validation", "test"]
Grade = Literal["none", "base", "medium", "strong", "strongest"]
FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test. `expected` is a Python literal for `call`, the output text for `stdio`, and empty for `code`."""

    __test__ = False  # pytest must not collect it

    role: Role
    input: str
    expected: str = ""
    form: Form = "call"


@dataclass(frozen=True, slots=True)
class Problem:
    """A task with its tests. `entry_point` is None for whole programs that read standard input.

    `signature` is the `def` or `class` line(s) shown to the policy; `preamble` is code that the prompt itself supplies
    (imports, helpers) and that runs before the solution; `imported` marks a third party's tests, which run exactly as written.
    """

    id: str
    prompt: str
    tests: tuple[TestCase, ...] = ()
    entry_point: str | None = None
    signature: str = ""
    preamble: str = ""
    reference: str | None = None
    difficulty: Difficulty = "easy"
    topic: str = "general"
    split: Split = "train"
    source: str = "builtin"
    imported: bool = False

    def tests_of(self, *roles: Role) -> tuple[TestCase, ...]:
        """The tests with any of these roles, in order."""
        return tuple(test for test in self.tests if test.role in roles)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote for one problem. `token_ids` are exactly the sampled actions (stop token included)."""

    problem_id: str
    text: str
    code: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "eos"


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test's outcome. `actual` and `error` are short texts for people; a verdict is never read from them."""

    __test__ = False

    test: TestCase
    passed: bool
    actual: str | None = None
    error: str | None = None
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TestReport:
    """What the sandbox found.

    outcome: `scored` (it ran against its tests), `policy_failure` (see `failure`) or `infra_failure` (nobody's verdict).
    failure: None or one of `syntax_error`, `missing_entry_point`, `load_error`, `timeout`, `memory`, `early_exit`, `crash`,
    `tampering`, `too_large`; for `infra_failure` a sentence on what broke.
    """

    __test__ = False

    outcome: Outcome
    results: tuple[TestResult, ...] = ()
    failure: str | None = None
    message: str = ""
    stdout: str = ""
    cpu_s: float = 0.0
    grade: Grade = "none"
    path: Literal["lowered", "opaque", "mixed", "none"] = "none"

    @property
    def passed(self) -> int:
        return sum(result.passed for result in self.results)

    @property
    def total(self) -> int:
        return len(self.results)

    @property
    def all_passed(self) -> bool:
        """True only if it was scored, had a test, and failed none."""
        return self.outcome == "scored" and self.total > 0 and self.passed == self.total


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What a judge said. `score` is the calibrated belief in [0, 1] that the code is right, or None with a reason in `error`.

    `refused` is True when the judge could not answer *because of what was written* (precheck, overlong, forbidden characters);
    then `error` says why and the reward is the lowest of its band. Otherwise an `error` is an infrastructure failure.
    """

    score: float | None
    principles: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    error: str | None = None
    refused: bool = False
    judge: str = ""
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    mix: float | None = None
    """The principles' mean by the constitution's weights, for the reward."""


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Static quality in [0, 1] with the findings that lowered it."""

    score: float
    findings: tuple[str, ...] = ()
    complexity: int = 1


@dataclass(frozen=True, slots=True)
class Feedback:
    """One completion's reward and every reason for it. `reward` is None exactly for `infra_failure` and `invalid_input`."""

    reward: float | None
    outcome: Outcome
    verified: bool = False
    band: Band | None = None
    tests: TestReport | None = None
    judge: JudgeReport | None = None
    quality: QualityReport | None = None
    efficiency: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """One row of `rollouts.jsonl`: a completion, its feedback, and what the update made of it."""

    episode: int
    problem: Problem
    completion: Completion
    feedback: Feedback
    advantage: float | None = None
    held_out_passed: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict)
