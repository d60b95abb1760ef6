"""Runs made up by formula, for tests of logs, reports and consoles: no model, no sandbox, the same every time."""

from __future__ import annotations

import random
from pathlib import Path

from rlaif.config import TrainConfig
from rlaif.evals.result import EvalResult, ProblemResult, Protocol
from rlaif.runs import RunDir
from rlaif.types import Completion, Feedback, JudgeReport, Problem, QualityReport, Rollout, TestCase, TestReport, TestResult

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)><!--<script>"

_TASKS = [
    (
        "count_vowels",
        "Write a function that counts the vowels in a string, upper and lower case alike.",
        "strings",
        "easy",
        "def count_vowels(text):\n    return sum(char in 'aeiou' for char in text.lower())\n",
        "def count_vowels(text):\n    vowels = 'aeiou'\n    count = 0\n    for char in text:\n        if char in vowels:\n            count += 1\n    return count\n",  # noqa: E501
        [
            ("count_vowels('hello')", "2", None),
            ("count_vowels('AEIOU')", "5", "0"),
            ("count_vowels('')", "0", None),
            ("count_vowels('Rhythm And')", "1", "0"),
        ],
    ),
    (
        "second_largest",
        "Return the second largest distinct number of a list, or None if there is none.",
        "lists",
        "medium",
        "def second_largest(numbers):\n    distinct = sorted(set(numbers))\n    return distinct[-2] if len(distinct) > 1 else None\n",
        "def second_largest(numbers):\n    # sort and take the one before the last\n    numbers.sort()\n    return numbers[-2]\n",
        [
            ("second_largest([1, 2, 3])", "2", None),
            ("second_largest([5, 5, 4])", "4", "5"),
            ("second_largest([7])", "None", "IndexError: list index out of range"),
        ],
    ),
    (
        "is_balanced",
        "Say whether the round, square and curly brackets of a text are balanced.",
        "stacks",
        "medium",
        "def is_balanced(text):\n    stack = []\n    pairs = {')': '(', ']': '[', '}': '{'}\n    for char in text:\n        if char in pairs.values():\n            stack.append(char)\n"  # noqa: E501
        "        elif char in pairs and (not stack or stack.pop() != pairs[char]):\n            return False\n    return not stack\n",
        "def is_balanced(text):\n    return text.count('(') == text.count(')')\n",
        [("is_balanced('(a[b]{c})')", "True", None), ("is_balanced('([)]')", "False", "True"), ("is_balanced(')(')", "False", "True")],
    ),
    (
        "fibonacci",
        "Return the n-th Fibonacci number; the first two are 0 and 1.",
        "numbers",
        "easy",
        "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
        "def fibonacci(n):\n    if n <= 1:\n        return 1\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
        [("fibonacci(0)", "0", "1"), ("fibonacci(1)", "1", None), ("fibonacci(10)", "55", "89")],
    ),
    (
        "word_lengths",
        "Map each word of a sentence to its length.",
        "dictionaries",
        "easy",
        "def word_lengths(sentence):\n    return {word: len(word) for word in sentence.split()}\n",
        "def word_lengths(sentence):\n    result = {}\n    for word in sentence.split(' '):\n        result[word] = len(word)\n    return result\n",
        [("word_lengths('a bc def')", "{'a': 1, 'bc': 2, 'def': 3}", None), ("word_lengths('')", "{}", "{'': 0}")],
    ),
    (
        "flatten",
        "Flatten a nested list of any depth.",
        "recursion",
        "hard",
        "def flatten(items):\n    flat = []\n    for item in items:\n        flat.extend(flatten(item) if isinstance(item, list) else [item])\n    return flat\n",  # noqa: E501
        "def flatten(items):\n    return [x for item in items for x in item]\n",
        [("flatten([1, [2, [3]]])", "[1, 2, 3]", "TypeError: 'int' object is not iterable"), ("flatten([])", "[]", None)],
    ),
]


def problems(count: int = 6) -> list[tuple[Problem, str]]:
    """Problems with a wrong solution each."""
    made = []
    for index in range(count):
        name, prompt, topic, difficulty, right, wrong, tests = _TASKS[index % len(_TASKS)]
        suffix = "" if index < len(_TASKS) else f"-{index}"
        cases = tuple(TestCase("graded" if place else "shown", call, expected) for place, (call, expected, _) in enumerate(tests))
        signature = right.split("\n")[0]
        made.append((Problem(f"{topic}/{name}{suffix}", prompt, cases, name, signature, reference=right, difficulty=difficulty, topic=topic), wrong))
    return made


def rollout(rng: random.Random, episode: int, problem: Problem, wrong: str, skill: float) -> Rollout:
    """One answer of a policy that is right with probability `skill`."""
    bad = {call: gave for _, _, _, _, _, _, tests in _TASKS for call, _, gave in tests if gave is not None}
    luck = rng.random()
    graded = problem.tests_of("graded")
    if luck < skill:
        code, results = problem.reference or "", tuple(TestResult(test, True, test.expected) for test in graded)
        report = TestReport("scored", results, grade="strong", path="lowered")
        quality = QualityReport(round(rng.uniform(0.7, 1.0), 2))
    elif luck > 0.93:
        code, quality = "Sure! Here is the function you asked for:\ndef solution(", None
        report = TestReport("policy_failure", (), "syntax_error", "line 1: invalid syntax", grade="strong")
    else:
        code = wrong + ("" if luck < 0.8 else f"\n# attempt {rng.randrange(1000)}\nprint('debug')\n")
        results = tuple(
            TestResult(
                test,
                test.input not in bad,
                test.expected if test.input not in bad else None if "Error" in bad[test.input] else bad[test.input],
                bad.get(test.input) if "Error" in bad.get(test.input, "") else None,
            )
            for test in graded
        )
        report = TestReport("scored", results, grade="strong", path="lowered", stdout="debug\n" if luck >= 0.8 else "")
        quality = QualityReport(
            round(rng.uniform(0.3, 0.8), 2), ("F841 local variable `count` is assigned to but never used", "PLR1714 merge these comparisons"), 4
        )
    belief = min(0.98, max(0.02, rng.gauss(0.75 if report.all_passed else 0.35, 0.16)))
    judge = JudgeReport(
        round(belief, 3),
        {
            "correctness": round(belief, 2),
            "clarity": round(rng.uniform(0.4, 0.9), 2),
            "efficiency": round(rng.uniform(0.4, 0.9), 2),
            "robustness": round(belief * 0.9, 2),
            "honesty": 0.94,
        },
        (
            "The cases of the task are handled." if report.all_passed else "The empty and the mixed-case inputs are not handled.",
            "clarity: 0.50 (Can a colleague follow it at once?)",
        ),
        judge="embedded",
        cached=rng.random() < 0.15,
        prompt_tokens=310,
        completion_tokens=5,
    )
    if report.outcome == "policy_failure":
        reward, reasons = 0.02, ("it does not parse: line 1: invalid syntax",)
    elif report.all_passed:
        q = 0.5 * belief + 0.5 * (quality.score if quality else 0.5)
        reward, reasons = (
            0.6 + 0.4 * q,
            (f"{report.passed} of {report.total} tests passed", f"quality term {q:.2f}: the judge {belief:.2f}, static quality {quality.score:.2f}"),
        )
    else:
        reward = 0.1 + 0.15 * report.passed / max(1, report.total) + 0.04 * belief
        failed = [f"failed: {r.test.input} gave {r.error or r.actual}, expected {r.test.expected}" for r in report.results if not r.passed]
        reasons = (f"{report.passed} of {report.total} tests passed", *failed, f"partial credit {report.passed / max(1, report.total):.2f}")
    unscored = rng.random() < 0.01
    feedback = Feedback(
        None if unscored else round(reward, 4),
        "infra_failure" if unscored else report.outcome,
        not unscored,
        None if unscored else "poor" if reward < 0.3 else "okay" if reward < 0.6 else "good",
        report,
        judge,
        quality,
        None,
        ("the sandbox could not answer",) if unscored else reasons,
    )
    tokens = tuple(rng.randrange(49152) for _ in range(max(4, len(code) // 4)))
    completion = Completion(
        problem.id, code if rng.random() < 0.7 else f"```python\n{code}```", code, tokens, "length" if rng.random() < 0.06 else "eos"
    )
    held = report.all_passed and rng.random() < 0.96
    return Rollout(
        episode,
        problem,
        completion,
        feedback,
        round(reward - 0.4, 4),
        held,
        {"approx_kl": abs(rng.gauss(0.002, 0.001)), "entropy": max(0.05, rng.gauss(0.8 - 0.4 * skill, 0.1))},
    )


def hostile_rollout(episode: int, problem: Problem) -> Rollout:
    """A rollout in which every text a model, a test or a judge can write is an attack on the page or the terminal."""
    attack = HOSTILE + "\x1b[2J\u202e \ud800"
    result = TestResult(TestCase("graded", f"f({HOSTILE!r})", HOSTILE), False, attack, attack)
    report = TestReport("scored", (result,), None, attack, attack, grade="strong")
    judge = JudgeReport(0.9, {HOSTILE: 0.5}, (attack,), judge=HOSTILE)
    feedback = Feedback(0.15, "scored", True, "poor", report, judge, QualityReport(0.4, (attack,)), 0.5, (attack,))
    return Rollout(episode, problem, Completion(problem.id, attack, f"# {attack}\nx = '''{HOSTILE}'''\n", (1, 2, 3)), feedback, -0.2, False)


def evaluation(skill: float, seed: int = 0, count: int = 120) -> EvalResult:
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        difficulty = ("easy", "medium", "hard")[index % 3]
        hard = {"easy": 0.15, "medium": 0.0, "hard": -0.12}[difficulty]
        passed = int(rng.random() < skill + hard)
        rows.append(
            ProblemResult(
                f"{_TASKS[index % 6][2]}/held-out-{index:03d}", _TASKS[index % 6][2], difficulty, 1, passed, tests_passed=8 * passed, tests_total=8
            )
        )
    protocol = Protocol("builtin", "test", 1, True, 1.0, 80, 0)
    return EvalResult("smollm2-135m", protocol, tuple(rows), generate_s=20.0, execute_s=4.0, grade="strong")


def make_run(
    path: Path,
    *,
    episodes: int = 20,
    batch_size: int = 4,
    group_size: int = 8,
    count: int = 12,
    state: str = "done",
    hostile: bool = True,
    evaluations: bool = True,
    alarms: bool = True,
    total: int | None = None,
    seed: int = 0,
) -> RunDir:
    """A whole run on disk. `total` is the number of episodes planned, where the run has not come to its end."""
    rng = random.Random(seed)
    total = total or episodes
    run = RunDir.create(path)
    run.write_config(TrainConfig(episodes=total, batch_size=batch_size, group_size=group_size))
    run.write_env(sandbox={"grade": "strong"}, seed=seed)
    tasks = problems(count)
    if hostile:
        tasks.append((Problem(f"hostile/{HOSTILE}", f"Print {HOSTILE}", (TestCase("graded", "f(1)", "1"),), "f", "def f(x):", topic=HOSTILE), "pass"))
    if evaluations:
        run.write_evaluation("before", evaluation(0.24).to_dict())
        run.write_evaluation("after_sft", evaluation(0.31).to_dict())
    for episode in range(1, episodes + 1):
        skill = 0.12 + 0.5 * episode / max(total, 1)
        rows = [rollout(rng, episode, *task, skill) for task in rng.sample(tasks[:count], min(batch_size, count)) for _ in range(group_size)]
        if hostile and episode == 1:
            rows.append(hostile_rollout(1, tasks[-1][0]))
        run.log_rollouts(rows)
        rewards = [row.feedback.reward for row in rows if row.feedback.reward is not None]
        passed = [row.feedback.tests.all_passed for row in rows if row.feedback.reward is not None]
        order = 0.75 + rng.gauss(0, 0.05)
        run.log_metrics(
            {
                "episode": episode,
                "reward_mean": sum(rewards) / len(rewards),
                "pass_rate": sum(passed) / len(passed),
                "approx_kl": abs(rng.gauss(0.002, 0.0008)),
                "entropy": 0.8 - 0.4 * skill + rng.gauss(0, 0.02),
                "completion_tokens_mean": sum(len(row.completion.token_ids) for row in rows) / len(rows),
                "truncated_share": 0.05,
                "skipped_group_share": rng.choice([0, 0.25, 0.5]),
                "explained_variance": min(0.8, episode / 30),
                "clip_fraction": abs(rng.gauss(0.04, 0.02)),
                "tokens_per_s": rng.gauss(260, 15),
                "sample_s": rng.gauss(7.5, 0.5),
                "feedback_s": rng.gauss(2.6, 0.3),
                "update_s": rng.gauss(4.4, 0.3),
                "episode_s": rng.gauss(14.6, 0.6),
                "grad_norm": abs(rng.gauss(0.6, 0.2)),
                "judge_auroc": order,
                "judge_auroc_low": order - 0.15,
                "judge_auroc_high": min(1.0, order + 0.1),
                "judge_calls": len(rows) - 4,
                "judge_cached": 4,
                "judge_tokens": 315 * len(rows),
            }
        )
        if alarms and episode == max(1, episodes * 3 // 4):
            run.log_alarm(
                episode,
                "judge_drift",
                "The judge puts an answer that passes the held-out tests above one that fails them in 58% of recent cases, "
                "down from 83% at the start (99.8% intervals apart).",
            )
    if evaluations and state == "done":
        run.write_evaluation("after", evaluation(0.45).to_dict())
    run.write_status(state, episodes, total)  # type: ignore[arg-type]
    run.close()
    return run
