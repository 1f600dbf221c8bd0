"""Who does what: small cases by hand, and the loads that are known for ResNet-50."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tfkfac.resnet_layers import resnet50_orders
from tfkfac.placement import (
    FACTOR_WISE,
    HYBRID,
    LAYER_WISE,
    PLACEMENTS,
    Grid,
    Work,
    deal,
    deal_in_turn,
    imbalance,
    make_grid,
    place,
)


def works(*orders, memory=None):
    """A and G of each layer, at n³."""
    return [
        Work(layer, side, float(n) ** 3, float(n * n if memory is None else memory))
        for layer, pair in enumerate(orders)
        for side, n in zip(("rows", "columns"), pair, strict=True)
    ]


# --- dealing ---


def test_deals_the_longest_first_to_the_least_loaded():
    costs = {"a": 3, "b": 7, "c": 5, "d": 4}
    # b to 0; c to 1; d to 1 (5 < 7); a to 0 (7 < 9).
    assert deal(costs, [0, 0]) == {"b": 0, "c": 1, "d": 1, "a": 0}


def test_deals_onto_what_is_there():
    assert deal({"a": 3, "b": 2}, [4, 0]) == {"a": 1, "b": 1}
    assert deal({"a": 3, "b": 2}, [2.5, 0]) == {"a": 1, "b": 0}


def test_equal_costs_keep_their_order():
    assert deal({"z": 1, "a": 1, "m": 1}, [0, 0, 0]) == {"z": 0, "a": 1, "m": 2}


def test_deals_in_turn():
    assert deal_in_turn({"a": 9, "b": 1, "c": 5}, 2) == {"a": 0, "b": 1, "c": 0}


def test_imbalance():
    assert imbalance([1, 1, 4]) == 2
    assert imbalance([2, 2]) == 1
    assert imbalance([0, 0]) == 1


# --- grids ---


@pytest.mark.parametrize(
    ("placement", "fraction", "workers"),
    [(FACTOR_WISE, 0.5, 8), (LAYER_WISE, 0.5, 1), (HYBRID, 0.5, 4), (HYBRID, 0.3, 2)],
)
def test_workers_of_a_layer(placement, fraction, workers):
    assert make_grid(placement, 8, fraction) == Grid(8, workers)


@pytest.mark.parametrize(
    ("ranks", "fraction", "workers"),
    [
        (6, 0.5, 3),
        (6, 1.0, 6),
        (6, 0.34, 2),
        (6, 0.99, 3),
        (7, 0.5, 1),
        (3, 1 / 3, 1),
        (10, 0.7, 5),
    ],
)
def test_hybrid_rounds_down_to_a_divisor(ranks, fraction, workers):
    assert make_grid(HYBRID, ranks, fraction).workers == workers


def test_a_grid_by_hand():
    grid = Grid(ranks=6, workers=2)
    assert grid.groups == 3
    assert [grid.members(group) for group in range(3)] == [[0, 3], [1, 4], [2, 5]]
    assert [grid.receivers(rank) for rank in (0, 1, 5)] == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("ranks", "workers"), [(n, w) for n in (1, 2, 6, 8, 12) for w in range(1, n + 1) if n % w == 0]
)
def test_every_rank_is_in_one_group_of_each_kind_and_they_meet_once(ranks, workers):
    grid = Grid(ranks, workers)
    groups = [grid.members(group) for group in range(grid.groups)]
    assert sorted(itertools.chain(*groups)) == list(range(ranks))
    receivers = {tuple(grid.receivers(rank)) for rank in range(ranks)}
    assert sorted(itertools.chain(*receivers)) == list(range(ranks))
    for rank in range(ranks):
        assert rank in grid.members(grid.group_of(rank))
        assert rank in grid.receivers(rank)
    for members, received in itertools.product(groups, receivers):
        assert len(set(members) & set(received)) == 1


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan")])
def test_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="gradient_worker_fraction must be in"):
        make_grid(HYBRID, 4, fraction)


def test_refuses_an_unknown_placement():
    with pytest.raises(ValueError, match="factor-wise, layer-wise, hybrid; got 'rank-wise'"):
        make_grid("rank-wise", 4)


# --- placing ---


def test_factors_of_a_layer_apart():
    placement = place(works((4, 3), (3, 2)), Grid(2, 2))
    # 64 to 0; 27 (layer 0), 27 (layer 1) and 8 to 1.
    assert placement.owners == {
        (0, "rows"): 0,
        (0, "columns"): 1,
        (1, "rows"): 1,
        (1, "columns"): 1,
    }
    assert placement.decomposition_loads() == [64, 62]
    assert placement.groups == {0: 0, 1: 0}


def test_factors_of_a_layer_together():
    placement = place(works((4, 3), (3, 2)), Grid(2, 2), together=True)
    assert placement.owners == {
        (0, "rows"): 0,
        (0, "columns"): 0,
        (1, "rows"): 1,
        (1, "columns"): 1,
    }
    assert placement.decomposition_loads() == [91, 35]


def test_layer_wise_keeps_layers_whole_and_bases_with_their_owner():
    placement = place(works((4, 3), (3, 2), (2, 2)), Grid(2, 1))
    assert placement.groups == {0: 0, 1: 1, 2: 1}
    assert placement.decomposition_loads() == [91, 51]
    assert placement.memory() == [16 + 9, 9 + 4 + 4 + 4]
    assert placement.is_worker(0, 0)
    assert not placement.is_worker(0, 1)


def test_hybrid_deals_layers_to_groups_then_factors_to_members():
    placement = place(works((4, 3), (3, 2), (2, 2)), Grid(4, 2))
    assert placement.groups == {0: 0, 1: 1, 2: 1}
    assert placement.owners[0, "rows"] == 0
    assert placement.owners[0, "columns"] == 2
    # Group 1 is ranks 1 and 3: 27 to one, 8 + 8 + 8 to the other.
    assert placement.decomposition_loads() == [64, 27, 27, 24]
    # Both members of a group hold its bases.
    assert placement.memory() == [25, 21, 25, 21]


def test_balance_by_memory():
    # Costs would put both cheap ones beside each other; memory does not.
    given = [
        Work(0, "rows", cost=10, memory=1),
        Work(1, "rows", cost=1, memory=8),
        Work(2, "rows", cost=1, memory=8),
    ]
    by_time = place(given, Grid(2, 1))
    by_memory = place(given, Grid(2, 1), balance="memory")
    assert by_time.memory() == [1, 16]
    assert by_memory.memory() == [9, 8]
    with pytest.raises(ValueError, match='balance must be "time" or "memory"'):
        place(given, Grid(2, 1), balance="cost")


def test_what_is_spread_is_dealt_apart_and_is_no_load_of_its_owner():
    given = [
        Work(0, "rows", 100.0, spread=True),
        Work(1, "rows", 90.0, spread=True),
        Work(2, "rows", 5.0),
        Work(3, "rows", 4.0),
    ]
    placement = place(given, Grid(2, 2))
    assert placement.owners == {(0, "rows"): 0, (1, "rows"): 1, (2, "rows"): 0, (3, "rows"): 1}
    assert placement.decomposition_loads() == [5, 4]


def test_previous_placement_stays():
    first = place(works((4, 3), (3, 2)), Grid(2, 2))
    late = [Work(2, "rows", 30.0), Work(2, "columns", 1.0)]
    second = place(late, Grid(2, 2), previous=first)
    assert {key: second.owners[key] for key in first.owners} == first.owners
    # 62 < 64, then 64 < 92.
    assert second.owners[2, "rows"] == 1
    assert second.owners[2, "columns"] == 0
    assert second.decomposition_loads() == [65, 92]
    assert second.works == (*first.works, *late)


def test_previous_placement_stays_in_its_groups():
    first = place(works((4, 3)), Grid(2, 1))
    second = place([Work(1, "rows", 1.0)], Grid(2, 1), previous=first)
    assert second.groups == {0: 0, 1: 1}


def test_nothing_to_place():
    placement = place([], Grid(3, 3))
    assert placement.decomposition_loads() == placement.memory() == [0, 0, 0]


orders = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=12)


@given(
    orders=orders,
    ranks=st.sampled_from([1, 2, 3, 4, 6, 8]),
    placement=st.sampled_from(PLACEMENTS),
    together=st.booleans(),
    balance=st.sampled_from(["time", "memory"]),
)
def test_every_placement_is_whole_and_repeats(orders, ranks, placement, together, balance):
    given_works = works(*orders)
    given_works[0] = dataclasses.replace(given_works[0], spread=True)
    grid = make_grid(placement, ranks)
    result = place(given_works, grid, together, balance)
    assert place(list(given_works), grid, together, balance) == result
    assert set(result.owners) == {(work.layer, work.side) for work in given_works}
    assert set(result.groups) == set(range(len(orders)))
    for (layer, _), owner in result.owners.items():
        assert result.is_worker(owner, layer)
        assert sum(result.is_worker(rank, layer) for rank in range(ranks)) == grid.workers
    loads = result.decomposition_loads()
    assert sum(loads) == sum(work.cost for work in given_works if not work.spread)
    assert sum(result.memory()) == grid.workers * sum(work.memory for work in given_works)


@given(costs=st.lists(st.integers(1, 100), min_size=1, max_size=30), places=st.integers(1, 8))
def test_longest_first_is_within_a_third_of_the_best(costs, places):
    """Graham's bound: at most 4/3 - 1/(3m) of the best, which is at least mean and largest."""
    dealt = deal(dict(enumerate(costs)), [0] * places)
    loads = [sum(c for i, c in enumerate(costs) if dealt[i] == place) for place in range(places)]
    if len(costs) > places:  # then two of the m + 1 longest share a place
        longest = sorted(costs, reverse=True)
        lower = max(sum(costs) / places, longest[0], longest[places - 1] + longest[places])
    else:
        lower = max(costs)
    assert max(loads) <= (4 / 3 - 1 / (3 * places)) * lower + 1e-9


# --- ResNet-50, whose loads are known ---


@pytest.mark.parametrize(("ranks", "expected"), [(4, 1.00), (8, 1.73), (16, 3.46)])
def test_resnet50_longest_first(ranks, expected):
    placement = place(works(*resnet50_orders()), make_grid(FACTOR_WISE, ranks))
    assert imbalance(placement.decomposition_loads()) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("ranks", "expected"), [(4, 1.98), (8, 2.02), (16, 3.95)])
def test_resnet50_round_robin(ranks, expected):
    costs = {layer: a**3 + g**3 for layer, (a, g) in enumerate(resnet50_orders())}
    loads = [0] * ranks
    for layer, rank in deal_in_turn(costs, ranks).items():
        loads[rank] += costs[layer]
    assert imbalance(loads) == pytest.approx(expected, abs=0.006)


def test_resnet50_is_bound_by_its_largest_factor():
    given = works(*resnet50_orders())
    assert len(given) == 2 * 54
    loads = place(given, make_grid(FACTOR_WISE, 64)).decomposition_loads()
    assert max(loads) == 4608**3
