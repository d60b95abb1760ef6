"""pass@k against values worked out by hand and against brute force; intervals against their known properties."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.evals.passk import mean_interval, paired, pass_at_k, sign_test, wilson

counts = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (10, 3, 1, 0.3),
        (5, 2, 2, 0.7),  # 1 - C(3,2)/C(5,2) = 1 - 3/10
        (4, 1, 3, 0.75),  # 1 - C(3,3)/C(4,3) = 1 - 1/4
        (10, 3, 5, 11 / 12),  # 1 - C(7,5)/C(10,5) = 1 - 21/252
        (6, 5, 2, 1.0),  # one failure cannot fill two places
        (200, 0, 100, 0.0),
    ],
)
def test_hand_computed(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_equals_the_average_over_every_choice_of_k_samples() -> None:
    samples = [True, False, False, True, False, False, False]
    subsets = list(combinations(samples, 3))
    assert pass_at_k(7, 2, 3) == pytest.approx(sum(any(chosen) for chosen in subsets) / len(subsets), abs=1e-12)


@given(counts)
def test_matches_the_binomial_formula(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


@given(counts)
def test_grows_with_k_and_with_passes(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    assert 0 <= pass_at_k(n, c, k) <= 1
    if k < n:
        assert pass_at_k(n, c, k) <= pass_at_k(n, c, k + 1) + 1e-12
    if c < n:
        assert pass_at_k(n, c, k) <= pass_at_k(n, c + 1, k) + 1e-12


def test_stays_exact_where_factorials_overflow() -> None:
    assert pass_at_k(100_000, 1, 1) == pytest.approx(1e-5, rel=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_refuses_nonsense(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="must be between"):
        pass_at_k(n, c, k)


def test_wilson_by_hand() -> None:
    # z = 1.959964: centre (0.8 + 3.841459/20) / 1.3841459 = 0.716738..., Wilson 1927; also Newcombe's tables: 8/10 -> 0.4902 to 0.9433
    interval = wilson(8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert wilson(0, 20).low == 0.0 and wilson(0, 20).high == pytest.approx(0.16113, abs=1e-5)
    assert wilson(20, 20).high == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_interval_holds_its_mean(scores: list[float]) -> None:
    interval = mean_interval(scores)
    assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9
    assert interval.count == len(scores)


def test_bootstrap_interval_agrees_with_the_normal_one_on_many_problems() -> None:
    scores = [i % 11 / 10 for i in range(1100)]
    interval = mean_interval(scores)
    half = 1.96 * (sum((s - 0.5) ** 2 for s in scores) / 1100) ** 0.5 / 1100**0.5
    assert (interval.value - interval.low, interval.high - interval.value) == pytest.approx((half, half), rel=0.05)
    assert interval == mean_interval(scores), "the same seed must give the same interval"


def test_sign_test_by_hand() -> None:
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert sign_test(0, 0) == 1.0


def test_paired_is_sharper_than_unpaired() -> None:
    before = [i % 2 for i in range(100)]
    after = [1 if i < 20 else i % 2 for i in range(100)]  # ten problems got better, none worse
    result = paired(before, after)
    assert (result.wins, result.losses, result.ties) == (10, 0, 90)
    assert result.difference.value == pytest.approx(0.10)
    assert result.settled and result.difference.low > 0.03
    assert result.p_value == pytest.approx(2 / 1024)
    assert wilson(50, 100).high > wilson(60, 100).low, "the two intervals overlap although the paired difference is clear"


def test_nothing_changed_is_not_a_difference() -> None:
    result = paired([0, 1, 1], [0, 1, 1])
    assert not result.settled and result.p_value == 1.0 and result.difference.low == result.difference.high == 0


def test_paired_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="same problems"):
        paired([1.0], [1.0, 0.0])
