"""Costs of distributed K-FAC: formulas on one small layer by hand, ResNet-50's known figures."""

import dataclasses

import pytest

from tests.tfkfac.resnet_layers import resnet50_orders
from tfkfac import layer_costs
from tfkfac.costs import Scheme, predict
from tfkfac.errors import InputError
from tfkfac.layer_costs import Layer, Workload
from tfkfac.machine import Link, Machine
from tfkfac.placement import FACTOR_WISE, HYBRID, LAYER_WISE
from tfkfac.plan import BLOCKS, DIAGONAL, IDENTITY, Side

# A second a multiplication or addition, a byte, an n³; nothing else takes time.
UNIT = Machine(
    name="unit",
    eigh={1: 1.0},
    matmul_flops=1.0,
    training_flops=1.0,
    factor_flops=1.0,
    memory_bandwidth=float("inf"),
    operation_seconds=0.0,
    ranks_per_node=64,
    inside=Link(1.0, 0.0),
)

# A: 3x3, G: 2x2, 10 rows a step.
DENSE = Layer("dense", Side(3), Side(2), positions=10)
NORM = Layer("norm", Side(5, DIAGONAL), Side(1, IDENTITY), positions=4)
SMALL = Workload((DENSE, NORM), parameters=20, training_flops=1000.0)

RESNET50 = Workload(
    tuple(
        Layer(str(i), Side(a), Side(g), positions=1) for i, (a, g) in enumerate(resnet50_orders())
    ),
    parameters=25_557_032,
    training_flops=1.0,
)


def seconds(workload=SMALL, ranks=4, machine=UNIT, **scheme):
    return predict(workload, machine, ranks, Scheme(**scheme)).seconds


# --- computation ---


def test_factor_flops():
    assert DENSE.factor_flops() == 2 * 10 * 3**2 + 2 * 10 * 2**2
    assert NORM.factor_flops() == 2 * 4 * 5
    blocks = Layer("blocks", Side(7, BLOCKS, 2), Side(2), positions=10)
    assert blocks.factor_flops() == 2 * 10 * 7 * 4 + 2 * 10 * 2**2
    grouped = Layer("grouped", Side(3), Side(2), groups=4, positions=10)
    assert grouped.factor_flops() == 4 * DENSE.factor_flops()
    assert seconds()["factors"] == DENSE.factor_flops() + NORM.factor_flops()


def test_counted_factor_flops_stand_for_the_formula_on_processors():
    counted = dataclasses.replace(SMALL, factor_flops=7.0)
    assert seconds(counted)["factors"] == 7
    on_gpu = dataclasses.replace(UNIT, gpu=True)
    assert seconds(counted, machine=on_gpu)["factors"] == seconds(SMALL)["factors"]


def test_training_seconds():
    assert seconds()["training"] == 1000
    measured = predict(SMALL, UNIT, 4, Scheme(), training_seconds=3.0)
    assert measured.seconds["training"] == 3


def test_preconditioning_flops():
    assert DENSE.preconditioning_flops(inverse=False) == 4 * 3 * 3 * 2 + 4 * 3 * 2 * 2
    assert DENSE.preconditioning_flops(inverse=True) == 2 * 3 * 3 * 2 + 2 * 3 * 2 * 2
    embedding = Layer("embedding", Side(9, DIAGONAL), Side(4), positions=10)
    assert embedding.preconditioning_flops(inverse=False) == 4 * 9 * 4 * 4
    assert NORM.preconditioning_flops(inverse=False) == 0


def test_preconditioning_shrinks_with_the_worker_groups():
    two = Workload((DENSE, DENSE), 12, 1.0)
    one_layer = DENSE.preconditioning_flops(inverse=False)
    assert seconds(two, placement=FACTOR_WISE)["preconditioning"] == 2 * one_layer
    assert seconds(two, placement=HYBRID)["preconditioning"] == one_layer
    assert seconds(two, placement=LAYER_WISE)["preconditioning"] == one_layer


def test_what_has_no_basis_is_preconditioned_everywhere():
    timed = dataclasses.replace(UNIT, operation_seconds=1.0)
    prediction = predict(SMALL, timed, 2, Scheme(placement=LAYER_WISE))
    assert list(prediction.placement.groups) == [0]
    operations = layer_costs.PRECONDITIONING_OPERATIONS
    products = DENSE.preconditioning_flops(inverse=False)
    assert prediction.seconds["preconditioning"] == products + 3 * operations + operations


def test_decompositions_go_to_owners():
    prediction = predict(SMALL, UNIT, 4, Scheme())
    assert prediction.work == (27, 8, 0, 0)
    assert prediction.decomposition_seconds == (27, 8, 0, 0)
    assert prediction.seconds["decomposition"] == prediction.first_seconds == 27
    assert prediction.work_imbalance == prediction.seconds_imbalance == 27 * 4 / 35


def test_blocks_and_groups_are_decomposed_one_by_one():
    layer = Layer("blocks", Side(7, BLOCKS, 2), Side(3, DIAGONAL), groups=5, positions=1)
    assert predict(Workload((layer,), 1, 1.0), UNIT, 1, Scheme()).work == (5 * 2 * 4**3,)


def test_inverses_take_a_cholesky_factorisation_and_two_solutions():
    assert seconds(method="inverse")["decomposition"] == pytest.approx(7 / 3 * 27)


def test_dealing_by_seconds():
    # The machine takes 9 s for either order, n³ says 27 and 8.
    flat = dataclasses.replace(UNIT, eigh={3: 9.0})
    layers = (DENSE, DENSE, DENSE)
    by_cube = predict(Workload(layers, 1, 1.0), flat, 2, Scheme())
    by_seconds = predict(Workload(layers, 1, 1.0), flat, 2, Scheme(by_seconds=True))
    # n³: 27+27 against 27+8+8+8.
    assert sorted(by_cube.decomposition_seconds) == [18, 36]
    assert by_seconds.decomposition_seconds == (27, 27)


# --- spread refresh ---


def test_a_refresh_takes_12_cubes_shared_by_the_worker_group():
    prediction = predict(SMALL, UNIT, 4, Scheme(refresh_above=2))
    assert prediction.decomposition_seconds == pytest.approx([12 * 27 / 4 + 8, *[12 * 27 / 4] * 3])
    assert prediction.work == pytest.approx([27 / 4 + 8, *[27 / 4] * 3])
    # Once it has to be decomposed all the same; it is dealt apart, so rank 0 also has the other.
    assert prediction.first_seconds == 27 + 8


def test_a_refresh_in_a_hybrid_group():
    prediction = predict(SMALL, UNIT, 4, Scheme(placement=HYBRID, refresh_above=2))
    # The layer's group is ranks 0 and 2; the order 2 factor is dealt apart from what is spread.
    assert prediction.decomposition_seconds == pytest.approx([12 * 27 / 2 + 8, 0, 12 * 27 / 2, 0])


def test_refresh_above_is_the_largest_order_that_is_decomposed():
    assert predict(SMALL, UNIT, 4, Scheme(refresh_above=3)).work == (27, 8, 0, 0)
    every = predict(SMALL, UNIT, 4, Scheme(refresh_above=1))
    assert every.work_imbalance == every.seconds_imbalance == 1


def test_part_of_a_refresh_does_not_shrink():
    timed = dataclasses.replace(UNIT, operation_seconds=1.0)
    share = layer_costs.refresh_seconds(DENSE, DENSE.rows, timed, workers=10**9)
    assert share == pytest.approx(layer_costs.REFRESH_OPERATIONS)


# --- what travels ---


def test_gradients():
    # A ring of four: 2·3/4 of 20 numbers of 4 bytes.
    prediction = predict(SMALL, UNIT, 4, Scheme())
    assert prediction.bytes["gradients"] == prediction.seconds["gradients"] == 2 * 3 / 4 * 4 * 20


@pytest.mark.parametrize(
    ("triangles", "half", "expected"),
    [
        (False, False, 4 * (9 + 4 + 5)),
        (False, True, 2 * (9 + 4 + 5)),
        # Order 3 folds to 2x4 (its middle row twice), order 2 to 1x3.
        (True, False, 4 * (8 + 3 + 5)),
        (True, True, 2 * (8 + 3 + 5)),
    ],
)
def test_factors(triangles, half, expected):
    prediction = predict(SMALL, UNIT, 4, Scheme(triangles=triangles, half=half))
    sent = 2 * 3 / 4 * expected
    assert prediction.bytes["factor exchange"] == sent
    assert prediction.seconds["factor exchange"] == sent
    assert prediction.bytes_per_step("factor exchange") == sent / 10


def test_triangles_are_what_fold_makes():
    from tfkfac.triangle import folded_shape

    for n in range(1, 8):
        half, width = folded_shape(n)
        assert layer_costs.factor_numbers(Side(n), triangles=True) == half * width
        assert (
            layer_costs.factor_numbers(Side(2 * n, BLOCKS, 2), triangles=True) == 2 * half * width
        )


@pytest.mark.parametrize(
    ("scheme", "numbers"),
    [
        ({}, 9 + 3 + 4 + 2),
        ({"method": "inverse"}, 9 + 4),
        ({"refresh_above": 2}, 2 * (9 + 3) + 4 + 2),
        ({"refresh_above": 1}, 2 * (9 + 3) + 2 * (4 + 2)),
    ],
)
def test_bases(scheme, numbers):
    prediction = predict(SMALL, UNIT, 4, Scheme(**scheme))
    assert prediction.bytes["basis exchange"] == 3 / 4 * 4 * numbers
    assert prediction.bytes["direction exchange"] == 0


def test_refreshes_take_four_exchanges():
    slow = dataclasses.replace(UNIT, inside=Link(float("inf"), 1.0))
    assert seconds(machine=slow)["basis exchange"] == 3
    assert seconds(machine=slow, refresh_above=2)["basis exchange"] == 3 * (4 + 1)
    assert seconds(machine=slow, refresh_above=1)["basis exchange"] == 3 * 4


def test_layer_wise_sends_directions_instead_of_bases():
    prediction = predict(SMALL, UNIT, 4, Scheme(placement=LAYER_WISE))
    assert prediction.bytes["basis exchange"] == 0
    # Of the layers that one rank preconditions; the others all ranks do.
    assert prediction.bytes["direction exchange"] == 3 / 4 * 4 * 6


def test_hybrid_sends_both():
    prediction = predict(SMALL, UNIT, 4, Scheme(placement=HYBRID))
    assert prediction.placement.grid.workers == 2
    assert prediction.bytes["basis exchange"] == 1 / 2 * 4 * (9 + 3 + 4 + 2)
    assert prediction.bytes["direction exchange"] == 1 / 2 * 4 * 6
    assert prediction.kfac_bytes_per_step == pytest.approx(
        prediction.bytes["factor exchange"] / 10
        + prediction.bytes["basis exchange"] / 100
        + prediction.bytes["direction exchange"]
    )


@pytest.mark.parametrize("placement", [FACTOR_WISE, LAYER_WISE, HYBRID])
def test_alone_nothing_travels(placement):
    alone = predict(SMALL, dataclasses.replace(UNIT, inside=None), 1, Scheme(placement=placement))
    assert alone.bytes == dict.fromkeys(alone.bytes, 0)
    assert alone.work == (35,)


def test_memory_of_bases():
    numbers = 9 + 3 + 4 + 2
    assert predict(SMALL, UNIT, 2, Scheme()).basis_bytes == (4 * numbers, 4 * numbers)
    assert predict(SMALL, UNIT, 2, Scheme(placement=LAYER_WISE)).basis_bytes == (4 * numbers, 0)


# --- steps ---


def test_steps():
    scheme = Scheme(factor_interval=5, eigen_interval=20)
    prediction = predict(SMALL, UNIT, 4, scheme)
    stage = prediction.seconds
    plain = stage["training"] + stage["gradients"] + stage["preconditioning"]
    factor = stage["factors"] + stage["factor exchange"]
    decomposition = stage["decomposition"] + stage["basis exchange"]
    assert prediction.plain_step_seconds == pytest.approx(plain)
    assert prediction.factor_step_seconds == pytest.approx(plain + factor)
    assert prediction.longest_step_seconds == pytest.approx(plain + factor + decomposition)
    assert prediction.step_seconds == pytest.approx(plain + factor / 5 + decomposition / 20)


def test_refuses():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        predict(SMALL, UNIT, 0, Scheme())
    with pytest.raises(ValueError, match="round-robin dealing is for"):
        Scheme(placement=HYBRID, round_robin=True)
    with pytest.raises(ValueError, match="only eigenbases can be refreshed"):
        Scheme(method="inverse", refresh_above=5)
    with pytest.raises(ValueError, match="gradient_worker_fraction must be in"):
        predict(SMALL, UNIT, 4, Scheme(placement=HYBRID, gradient_worker_fraction=0))
    with pytest.raises(InputError, match="no key across"):
        predict(SMALL, UNIT, 128, Scheme())


# --- ResNet-50 ---


@pytest.mark.parametrize(("ranks", "expected"), [(4, 1.00), (8, 1.73), (16, 3.46)])
def test_resnet50_longest_first(ranks, expected):
    prediction = predict(RESNET50, UNIT, ranks, Scheme())
    assert prediction.work_imbalance == pytest.approx(expected, abs=0.005)
    assert prediction.seconds_imbalance == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("placement", [FACTOR_WISE, LAYER_WISE])
@pytest.mark.parametrize(("ranks", "expected"), [(4, 1.98), (8, 2.02), (16, 3.95)])
def test_resnet50_round_robin(placement, ranks, expected):
    scheme = Scheme(placement=placement, round_robin=True)
    prediction = predict(RESNET50, UNIT, ranks, scheme)
    assert prediction.work_imbalance == pytest.approx(expected, abs=0.006)


def test_round_robin_deals_factors_apart_where_ranks_exceed_layers():
    few = predict(RESNET50, UNIT, 54, Scheme(round_robin=True)).placement
    many = predict(RESNET50, UNIT, 64, Scheme(round_robin=True)).placement
    assert few.owners[1, "rows"] == few.owners[1, "columns"] == 1
    assert (many.owners[1, "rows"], many.owners[1, "columns"]) == (2, 3)
    whole = predict(RESNET50, UNIT, 64, Scheme(placement=LAYER_WISE, round_robin=True)).placement
    assert whole.owners[1, "rows"] == whole.owners[1, "columns"] == 1


def test_resnet50_is_balanced_where_large_factors_are_refreshed_together():
    bound = predict(RESNET50, UNIT, 64, Scheme())
    spread = predict(RESNET50, UNIT, 64, Scheme(refresh_above=512))
    assert bound.work_imbalance > 13
    assert spread.work_imbalance < 1.1


# --- the optimizer's own placement ---


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(),
        Scheme(placement=LAYER_WISE),
        Scheme(placement=HYBRID, balance="memory"),
        Scheme(refresh_above=6),
    ],
)
def test_places_as_the_optimizer_does(scheme):
    import keras
    import tensorflow as tf

    from tfkfac import model_trace
    from tfkfac.communication import SingleProcess
    from tfkfac.placement import make_grid
    from tfkfac.plan import LayerPlan
    from tfkfac.preconditioner import Distribution, Preconditioner

    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(7),
            keras.layers.Dense(3),
        ]
    )
    workload = model_trace.trace(model_trace.Subject("small", model), 5)
    plans = [
        LayerPlan(layer.name, "dense", i, None, 1, layer.groups, layer.rows, layer.columns, (), ())
        for i, layer in enumerate(workload.layers)
    ]
    grid = make_grid(scheme.placement, 4, scheme.gradient_worker_fraction)
    preconditioner = Preconditioner(
        "eigen",
        0.95,
        False,
        "expand",
        tf.float32,
        SingleProcess(),
        Distribution(grid, scheme.balance, refresh_above=scheme.refresh_above),
    )
    preconditioner.adopt(plans)
    expected = preconditioner.placement
    actual = predict(workload, dataclasses.replace(UNIT), 4, scheme).placement
    assert actual.owners == expected.owners
    assert actual.groups == expected.groups
    assert actual.memory() == expected.memory()
    assert {w.spread for w in actual.works} == {w.spread for w in expected.works}
