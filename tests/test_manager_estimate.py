"""Rates, densities, times left, backoff and scores."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.backoff import Backoff
from manager.estimate import Density, Rate, seconds_left
from manager.score import Score


def test_a_rate_is_unknown_before_anything_was_counted() -> None:
    rate = Rate(100.0)
    assert rate.at(100.0) is None
    assert rate.at(105.0) is None


def test_a_rate_is_unknown_before_time_has_passed() -> None:
    rate = Rate(100.0)
    rate.add(5, 100.0)
    assert rate.at(100.0) is None


def test_a_steady_rate_is_exact_from_the_first_count_on() -> None:
    rate = Rate(0.0)
    for second in range(1, 50):
        rate.add(30, float(second))
        assert rate.at(float(second)) == pytest.approx(30)


def test_a_rate_follows_a_change_within_its_window() -> None:
    rate = Rate(0.0, window_seconds=10.0)
    for second in range(1, 100):
        rate.add(100 if second < 50 else 10, float(second))
    assert rate.at(99.0) == pytest.approx(10, rel=0.1)


def test_a_rate_falls_while_nothing_is_counted() -> None:
    rate = Rate(0.0)
    rate.add(100, 1.0)
    later = [rate.at(float(second)) or 0.0 for second in range(1, 40)]
    assert later == sorted(later, reverse=True)
    assert later[-1] < later[0] / 10


def test_the_time_left_is_unknown_without_a_rate() -> None:
    assert seconds_left(0.5, None) is None
    assert seconds_left(0.5, 0.0) is None


def test_the_time_left_is_the_rest_at_the_rate() -> None:
    assert seconds_left(0.5, 0.01) == pytest.approx(50)
    assert seconds_left(0.0, None) == 0.0


def test_a_density_knows_nothing_before_the_first_proof() -> None:
    assert Density().share_of(1.0) == 0.0


def test_a_density_follows_the_neighbourhood() -> None:
    density = Density()
    for _ in range(100):
        density.add(1.0, 0.001)
    for _ in range(60):
        density.add(1.0, 0.01)
    assert density.share_of(0.5) == pytest.approx(0.005, rel=0.05)


def test_content_is_even_as_long_as_the_last_proofs_hold_what_all_of_them_did() -> None:
    density = Density()
    for _ in range(50):
        density.add(1.0, 0.001)
        assert density.is_even
    for _ in range(20):
        density.add(1.0, 0.000_01)
    assert not density.is_even


def test_delays_double_up_to_a_bound_and_are_short_again_after_a_success() -> None:
    backoff = Backoff(0.5, 4.0, random.Random(1))
    delays = [backoff.failed() for _ in range(6)]
    for delay, bound in zip(delays, [0.5, 1.0, 2.0, 4.0, 4.0, 4.0], strict=True):
        assert bound / 2 <= delay <= bound
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() <= 0.5


def test_delays_of_two_clients_differ() -> None:
    first, second = Backoff(1.0, 60.0, random.Random(1)), Backoff(1.0, 60.0, random.Random(2))
    assert [first.failed() for _ in range(5)] != [second.failed() for _ in range(5)]


def test_a_delay_stays_finite_after_a_very_long_outage() -> None:
    backoff = Backoff(0.25, 30.0, random.Random(1))
    assert all(backoff.failed() <= 30.0 for _ in range(5000))


@given(st.lists(st.booleans(), max_size=50))
def test_a_score_stays_between_0_and_1_and_allows_at_least_one_request(outcomes: list[bool]) -> None:
    score = Score()
    for succeeded in outcomes:
        score.succeeded() if succeeded else score.failed()
        assert 0.0 <= score.value <= 1.0
        assert 1 <= score.requests_in_flight(4) <= 4


def test_a_score_falls_quickly_and_heals_slowly() -> None:
    score = Score()
    assert score.requests_in_flight(4) == 4
    score.failed()
    score.failed()
    assert score.requests_in_flight(4) == 1
    for _ in range(20):
        score.succeeded()
    assert score.requests_in_flight(4) == 4
