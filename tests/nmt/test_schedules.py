"""Learning rates, against values worked out by hand."""

import pytest

from nmt.config import Optimization
from nmt.schedules import Plateau, Schedule


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("inverse-sqrt", [0.5, 1.0, (2 / 3) ** 0.5, 0.5**0.5, (2 / 5) ** 0.5, (1 / 3) ** 0.5]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ("plateau", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_two_updates_of_warmup_and_four_more(kind, expected):
    schedule = Schedule(kind, base=1.0, warmup=2, updates=6, factor=0.5)
    assert [schedule.rate(update) for update in range(1, 7)] == pytest.approx(expected)


def test_nothing_is_left_after_the_end():
    assert Schedule("linear", 1.0, updates=4).rate(9) == 0.0
    assert Schedule("cosine", 1.0, updates=4).rate(9) == 0.0


def test_without_warmup():
    schedule = Schedule("inverse-sqrt", 3.0)
    assert (schedule.rate(1), schedule.rate(9)) == (3.0, 1.0)


def test_reductions_of_a_plateau():
    options = Optimization(schedule="plateau", learning_rate=0.8, plateau_factor=0.5, warmup=4)
    schedule = Schedule.of(options, updates=100)
    assert schedule.rate(50, reductions=3) == pytest.approx(0.1)
    assert schedule.rate(2, reductions=3) == pytest.approx(0.4)  # the warm-up is not cut short


def test_when_patience_runs_out():
    state = Plateau(patience=2)
    reductions = []
    for measure in (1.0, 2.0, 2.0, 1.5, 1.9, 3.0, 2.9, 2.8, 2.7, 2.6):
        state = state.after(measure)
        reductions.append(state.reductions)
    #                     best  2       -1st          best       -2nd      -3rd
    assert reductions == [0, 0, 0, 1, 1, 1, 1, 2, 2, 3]
    assert state.best == 3.0
