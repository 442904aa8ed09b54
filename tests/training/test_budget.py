"""How many steps fit a budget, against the definition, and what steps cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.errors import ConfigError
from metagdpo.records.training_cost import TrainingCost
from metagdpo.records.training_step import TrainingStep
from metagdpo.training.budget import steps_to_take, training_cost
from metagdpo.training.settings import TrainParams

EPOCHS = TrainParams(learning_rate=1e-3, epochs=3)


def within(max_tokens):
    return TrainParams(learning_rate=1e-3, epochs=3, max_tokens=max_tokens)


def refuse_to_count(_step):
    raise AssertionError


def test_without_a_budget_it_is_the_epochs_and_nothing_is_counted():
    assert steps_to_take(EPOCHS, 5, refuse_to_count) == 3 * 5


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 1000))
def test_the_budget_takes_the_most_steps_that_fit(costs, max_tokens):
    """The largest n with sum of the first n costs <= budget; steps repeat without end, and epochs do not count."""
    cost = lambda step: costs[step % len(costs)]  # noqa: E731
    if costs[0] > max_tokens:
        with pytest.raises(ConfigError, match=rf"does not suffice for one step, which computes {costs[0]} tokens"):
            steps_to_take(within(max_tokens), len(costs), cost)
        return
    found = steps_to_take(within(max_tokens), len(costs), cost)
    assert sum(cost(step) for step in range(found)) <= max_tokens < sum(cost(step) for step in range(found + 1))


def test_a_budget_that_fits_exactly_is_used_up():
    assert [steps_to_take(within(n), 2, lambda _step: 10) for n in (29, 30, 31)] == [2, 3, 3]


def test_a_budget_below_one_step_says_what_a_step_costs():
    with pytest.raises(ConfigError, match=r"train\.max_tokens = 9 .* 10 tokens with gradient\. Raise it, or lower"):
        steps_to_take(within(9), 2, lambda _step: 10)


def test_steps_without_tokens_before_one_with_some_are_free():
    assert steps_to_take(within(10), 3, lambda step: 4 if step % 3 == 2 else 0) == 8


def test_training_on_nothing_is_refused_instead_of_going_on_without_end():
    with pytest.raises(ConfigError, match="nothing is computed with gradient"):
        steps_to_take(within(10), 3, lambda _step: 0)


def a_step(number, values, speed):
    return TrainingStep(step=number, values=values, speed=speed)


def test_costs_add_up_and_memory_is_the_most_of_any_step():
    history = [
        a_step(0, {"tokens": 120.0, "loss": 1.0}, {"seconds": 0.5, "peak_memory_gb": 1.5}),
        a_step(1, {"tokens": 80.0}, {"seconds": 0.25, "peak_memory_gb": 2.5}),
        a_step(2, {"tokens": 40.0, "sampled_tokens": 30.0}, {"seconds": 2.0, "peak_memory_gb": 2.0}),
    ]
    expected = TrainingCost(
        n_steps=3, n_tokens=120 + 80 + 40, n_sampled_tokens=30, seconds=0.5 + 0.25 + 2.0, peak_memory_gb=2.5
    )
    assert training_cost(history) == expected


def test_no_steps_cost_nothing():
    assert training_cost([]) == TrainingCost(n_steps=0, n_tokens=0, n_sampled_tokens=0, seconds=0, peak_memory_gb=0)


def test_the_cost_of_two_parts_is_the_sum_of_their_costs():
    parts = [[a_step(i, {"tokens": 7.0 * i}, {"seconds": 1.0 * i})] for i in range(3)]
    found = [training_cost(part) for part in parts]
    whole = training_cost([step for part in parts for step in part])
    assert whole.n_tokens == sum(each.n_tokens for each in found)
    assert whole.seconds == sum(each.seconds for each in found)
