"""Rates, densities, times left, backoff and scores."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.peers.health import Backoff, Score
from manager.scheduling.backlog import Density
from manager.status.estimate import MAX_SECONDS_LEFT, Expectation, Rate, seconds_left


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
    assert seconds_left(500, 10.0) == pytest.approx(50)
    assert seconds_left(0.0, None) == 0.0


def test_a_time_left_of_more_than_a_year_is_unknown() -> None:
    assert seconds_left(MAX_SECONDS_LEFT * 0.99, 1.0) is not None
    assert seconds_left(MAX_SECONDS_LEFT, 1.0) is None
    assert seconds_left(2**63 - 1, 1000.0) is None
    # A rate of which nothing but the last bit is left: the quotient is infinite.
    assert seconds_left(2**63 - 1, 5e-324) is None


def test_a_density_knows_nothing_before_the_first_proof() -> None:
    assert Density().share_of(1.0, 1000) == 0.0


def test_a_density_follows_the_neighbourhood() -> None:
    density = Density()
    for _ in range(100):
        density.add(1.0, 100, 0.001, 1.0)
    for _ in range(60):
        density.add(1.0, 100, 0.01, 1.0)
    assert density.share_of(0.5, 1000) == pytest.approx(0.005, rel=0.05)


def test_a_density_remembers_full_proofs_beside_many_that_hold_little() -> None:
    density = Density()
    for _ in range(10):
        density.add(1.0, 100, 0.01, 1.0)
    for _ in range(500):
        # Each of a pair: what share of the tree that is says little.
        density.add(1 / 8192, 1, 1e-7, 1 / 8192)
    assert density.share_of(1.0, 1000) == pytest.approx(0.01, rel=0.05)


def test_where_proofs_held_nothing_any_share_fits_into_one() -> None:
    density = Density()
    density.add(0.0, 0, 0.01, 0.0)
    assert density.share_of(1.0, 1000) == math.inf
    density.add(1.0, 100, 0.01, 1.0)
    assert density.share_of(1.0, 1000) == pytest.approx(0.019)


def test_whichever_limit_a_proof_reaches_first_says_how_much_fits() -> None:
    density = Density()
    density.add(0.5, 500, 0.01, 0.5)
    assert density.share_of(1.0, 10_000) == pytest.approx(0.02), "the number of pairs"
    assert density.share_of(1.0, 250) == pytest.approx(0.005), "the bytes"


def test_how_many_keys_there_are_is_unknown_until_somebody_says_it() -> None:
    expectation = Expectation()
    assert expectation.keys(0) is None
    expectation.hear("silent", 0)
    assert expectation.keys(5) is None
    expectation.hear("honest", 100)
    assert expectation.keys(5) == 100


def test_what_an_earlier_run_heard_counts_until_a_peer_says_something() -> None:
    expectation = Expectation(300)
    assert expectation.keys(5) == 300
    expectation.hear("honest", 100)
    assert expectation.keys(5) == 100


def test_keys_done_beyond_what_was_said_raise_it() -> None:
    expectation = Expectation()
    expectation.hear("modest", 1)
    assert expectation.keys(7) == 7


def test_the_peer_that_has_delivered_most_is_believed() -> None:
    expectation = Expectation()
    expectation.hear("boaster", 2**63 - 1)
    expectation.hear("honest", 100)
    expectation.deliver("honest", 10)
    assert expectation.keys(10) == 100
    expectation.deliver("boaster", 20)
    assert expectation.keys(30) == 2**63 - 1


def test_a_number_that_was_surpassed_counts_only_where_nobody_says_a_larger_one() -> None:
    expectation = Expectation()
    expectation.hear("modest", 20)
    expectation.hear("honest", 100)
    expectation.deliver("modest", 30)
    assert expectation.keys(20) == 20
    assert expectation.keys(30) == 100


def test_what_a_peer_said_is_replaced_and_forgotten() -> None:
    expectation = Expectation()
    expectation.hear("peer", 20)
    expectation.hear("peer", 30)
    assert expectation.keys(0) == 30
    expectation.forget("peer")
    expectation.forget("peer")
    assert expectation.keys(0) is None


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
