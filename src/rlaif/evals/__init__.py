"""Evaluation that can be believed: the same harness for every model, intervals on every figure, and no torch."""

from rlaif.evals.compare import Comparison, compare, compare_with_controls, fail_under
from rlaif.evals.completions import CompletionScores, program_of, score_completions
from rlaif.evals.passk import Interval, Paired, mean_interval, paired, pass_at_k, sign_test, wilson
from rlaif.evals.result import EvalResult, ProblemResult, Protocol, verdict
from rlaif.evals.run import Generate, evaluate, evaluation_roles

__all__ = [
    "Comparison",
    "CompletionScores",
    "EvalResult",
    "Generate",
    "Interval",
    "Paired",
    "ProblemResult",
    "Protocol",
    "compare",
    "compare_with_controls",
    "evaluate",
    "evaluation_roles",
    "fail_under",
    "mean_interval",
    "paired",
    "pass_at_k",
    "program_of",
    "score_completions",
    "sign_test",
    "verdict",
    "wilson",
]
