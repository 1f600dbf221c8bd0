"""Learning rates against values worked out by hand."""

import math

import keras
import pytest

from models.schedules import (
    WarmupCosineDecay,
    WarmupLinearDecay,
    WarmupStepDecay,
    epochs_to_steps,
)


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_epochs_to_steps():
    assert epochs_to_steps(35, 390) == 13650
    assert epochs_to_steps(0.5, 391) == 196  # 195.5, to the even number
    assert epochs_to_steps(0, 391) == 0


def test_warmup_reaches_the_base_in_its_last_step():
    schedule = WarmupStepDecay(0.4, boundaries=[], warmup_steps=4)
    assert rates(schedule, range(6)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_warmup_from_one_rank_to_four():
    schedule = WarmupStepDecay(0.4, boundaries=[], warmup_steps=3, warmup_start=0.25)
    assert rates(schedule, range(4)) == pytest.approx([0.2, 0.3, 0.4, 0.4])


def test_step_decay():
    schedule = WarmupStepDecay(1.0, boundaries=[3, 5], factor=0.1)
    expected = [1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert rates(schedule, range(7)) == pytest.approx(expected)


def test_linear_decay_ends_at_zero_and_stays_there():
    schedule = WarmupLinearDecay(0.8, total_steps=6, warmup_steps=2)
    expected = [0.4, 0.8, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]
    assert rates(schedule, range(8)) == pytest.approx(expected, abs=1e-7)


def test_cosine_decay_is_half_a_cosine():
    schedule = WarmupCosineDecay(2.0, total_steps=8, warmup_steps=2)
    expected = [1.0, 2.0] + [1 + math.cos(math.pi * k / 6) for k in range(7)] + [0.0]
    assert rates(schedule, range(10)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        WarmupStepDecay(0.3, [4, 9], factor=0.5, warmup_steps=2, warmup_start=0.5),
        WarmupLinearDecay(0.3, total_steps=12, warmup_steps=2, warmup_start=0.5),
        WarmupCosineDecay(0.3, total_steps=12, warmup_steps=2, warmup_start=0.5),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_are_saved_with_the_optimizer(schedule):
    optimizer = keras.optimizers.SGD(schedule)
    saved = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(saved)._learning_rate
    assert type(copy) is type(schedule)
    assert rates(copy, range(14)) == rates(schedule, range(14))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmupLinearDecay(0.1, total_steps=5, warmup_steps=5), "5 steps leaves nothing"),
        (lambda: WarmupCosineDecay(0.1, total_steps=0), "0 steps leaves nothing"),
        (lambda: WarmupStepDecay(0.1, [], warmup_steps=-1), "must not be negative, not -1"),
        (lambda: WarmupStepDecay(0.1, [], warmup_start=2), "fraction of the base rate, not 2"),
    ],
)
def test_impossible_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()
