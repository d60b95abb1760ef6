"""The curriculum goes where the outcome is uncertain, forgets, keeps the user's own problems in sight, and resumes exactly."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.problems.curriculum import FLOOR, UNSEEN_BONUS, Curriculum
from rlaif.types import Problem


def problems(count: int, own: int = 0) -> list[Problem]:
    return [Problem(id=f"p{i}", prompt="p", source="user" if i < own else "builtin") for i in range(count)]


@given(st.integers(1, 30), st.integers(1, 70), st.integers(0, 4), st.booleans())
def test_a_draw_repeats_nothing_before_everything_came_up(count: int, n: int, own: int, uniform: bool) -> None:
    drawn = Counter(problem.id for problem in Curriculum(problems(count, own), 0, uniform=uniform).draw(n))
    assert sum(drawn.values()) == n
    assert max(drawn.values()) - min(drawn.values() if n >= count else [max(drawn.values())]) <= 1
    assert len(drawn) == min(n, count)


def test_weights_by_hand() -> None:
    curriculum = Curriculum(problems(3), 0)
    # Beta(1, 1): 4 * 1 / (2 * 3) = 2/3, squared, times the bonus
    assert curriculum.weights() == pytest.approx([4 / 9 * UNSEEN_BONUS] * 3)
    curriculum.update("p0", 4, 8)  # Beta(5, 5): 4 * 25 / 110
    curriculum.update("p1", 0, 8)  # Beta(1, 9): 4 * 9 / 110
    assert curriculum.weights() == pytest.approx([(100 / 110) ** 2, (36 / 110) ** 2, 4 / 9 * UNSEEN_BONUS])
    for _ in range(20):
        curriculum.update("p1", 0, 80)
    assert curriculum.weights()[1] == FLOOR


def test_prefers_the_uncertain_and_forgets_nobody() -> None:
    curriculum = Curriculum(problems(30), 1)
    for i in range(30):
        for _ in range(4):
            curriculum.update(f"p{i}", 0 if i < 10 else 8 if i < 20 else 4, 8)
    drawn = Counter(problem.id for _ in range(400) for problem in curriculum.draw(4))
    groups = [sum(drawn[f"p{i}"] for i in range(start, start + 10)) for start in (0, 10, 20)]
    assert groups[2] > 3 * max(groups[:2]) and min(groups) > 15, groups
    flat = Curriculum(problems(30), 1, uniform=True)
    for i in range(30):
        flat.update(f"p{i}", 0 if i < 10 else 4, 8)
    even = Counter(problem.id for _ in range(15) for problem in flat.draw(4))
    assert set(even.values()) == {2}, "uniform draws go round"


def test_measured_pass_rates_say_where_to_look_first() -> None:
    measured = {f"p{i}": 0.0 if i < 40 else 0.5 for i in range(50)}
    drawn = Counter(problem.id for problem in Curriculum(problems(50), 0, measured=measured).draw(8))
    hopeful = sum(drawn[f"p{i}"] for i in range(40, 50))
    assert hopeful >= 6, "ten problems of fifty are within reach"
    curriculum = Curriculum(problems(2), 0, measured={"p0": 0.5})
    assert curriculum.weights()[0] == pytest.approx((4 * 81 / (18 * 19)) ** 2)  # Beta(9, 9), no bonus: it is no stranger
    assert curriculum.pass_rate("p0") is None, "measured with another model's policy, not this one's"


def test_follows_the_policy_as_it_learns() -> None:
    curriculum = Curriculum(problems(1), 0)
    curriculum.update("p0", 0, 8)
    assert curriculum.pass_rate("p0") == 0
    twice = Curriculum(problems(1), 0)
    twice.update("p0", 8, 8)
    twice.update("p0", 0, 8)
    assert twice.pass_rate("p0") == pytest.approx(0.7 * 8 / (0.7 * 8 + 8))
    for _ in range(6):
        curriculum.update("p0", 8, 8)
    assert curriculum.pass_rate("p0") > 0.95, "outcomes of an old policy fade"


def test_user_problems_come_up_in_every_draw() -> None:
    curriculum = Curriculum(problems(100, own=3), 0)
    for _ in range(20):
        assert {"p0", "p1", "p2"} <= {problem.id for problem in curriculum.draw(12)}
    assert sum(curriculum.times_drawn[3:]) == 20 * 9
    crowd = Curriculum(problems(30, own=10), 0)
    for size, own in ((4, 1), (8, 2), (2, 1)):
        drawn = [problem.source for problem in crowd.draw(size)]
        assert drawn.count("user") == own, "a quarter of the places, and one at least"
    turns = Curriculum(problems(30, own=10), 0)
    assert set(Counter(problem.id for _ in range(20) for problem in turns.draw(4) if problem.source == "user").values()) == {2}, "they take turns"
    own_only = Curriculum(problems(10, own=10), 0)
    own_only.update("p0", 4, 8)
    assert own_only.draw(4), "a set of nothing but user problems is an ordinary one"


def test_resume_is_exact() -> None:
    first = Curriculum(problems(40, own=2), 5)
    for turn in range(10):
        for problem in first.draw(6):
            first.update(problem.id, turn % 4, 4)
    state = json.loads(json.dumps(first.state_dict()))
    second = Curriculum(problems(40, own=2), 99)
    second.load_state_dict(state)
    for _ in range(5):
        assert [p.id for p in first.draw(6)] == [p.id for p in second.draw(6)]
    assert first.summary() == second.summary()
    with pytest.raises(ValueError, match="saved for other problems"):
        Curriculum(problems(41), 5).load_state_dict(state)


def test_summary_and_nonsense() -> None:
    curriculum = Curriculum(problems(4), 0)
    curriculum.update("p0", 8, 8)
    curriculum.update("p1", 0, 8)
    curriculum.update("p2", 3, 8)
    curriculum.update("p3", 0, 0)
    summary = curriculum.summary()
    assert [summary[key] for key in ("tried", "mastered", "never_passed", "uncertain")] == [3, 1, 1, 1]
    assert json.dumps(summary) and curriculum.pass_rate("p3") is None
    with pytest.raises(ValueError, match="between 0 and total"):
        curriculum.update("p0", 3, 2)
    with pytest.raises(ValueError, match="at least one"):
        Curriculum([], 0)
    with pytest.raises(ValueError, match="same id"):
        Curriculum([*problems(1), *problems(1)], 0)
    with pytest.raises(ValueError, match="cannot draw"):
        curriculum.draw(0)
    assert np.isfinite(curriculum.weights()).all()
