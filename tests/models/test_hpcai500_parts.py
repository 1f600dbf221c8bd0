"""The parts of hpcai500: plans, settings, clocks, speeds, logs, and what a machine is."""

import dataclasses
import json
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.benchmark import flops, mllog, optimizers, plans, products, system, trial
from models.benchmark.observation import Speed, speed
from models.benchmark.plans import Request
from models.benchmark.power import Energy
from models.benchmark.record import Conditions, Evaluation, Plan, Record
from models.benchmark.stopwatch import Stopwatch
from models.muon import ConvolutionMuon
from models.resnet import resnet8
from tfkfac import KFAC
from tfkfac.errors import InputError, TrainingError

# ------------------------------------------------------------------------------------ plans


def test_plans_are_all_combinations():
    request = Request(
        ["hep", "cosmoflow"],
        ["sgd", "kfac"],
        size="tiny",
        ranks=(1, 2),
        repetitions=2,
        seed=7,
        targets={"hep": 0.9},
        epochs=3,
        settings={"hep": {"sgd": {"learning_rate": 0.5}}},
    )
    made = plans.make(request)
    assert len({plan.name for plan in made}) == len(made) == 2 * 2 * 2 * 2
    first = made[0]
    assert (first.workload, first.optimizer, first.ranks, first.seed) == ("hep", "sgd", 1, 7)
    assert dict(first.settings) == {"learning_rate": 0.5}
    assert (first.target, first.epochs, first.batch_size) == (0.9, 3, 32)
    assert {(plan.repetition, plan.seed) for plan in made} == {(1, 7), (2, 8)}
    assert {plan.batch_size for plan in made if plan.workload == "hep"} == {32}


def test_weak_scaling_gives_each_rank_a_whole_batch():
    made = plans.make(Request(["hep"], ["sgd"], "tiny", ranks=(1, 2, 4), scaling=plans.WEAK))
    assert [(plan.ranks, plan.batch_size) for plan in made] == [(1, 32), (2, 64), (4, 128)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workloads": ["hepp"]}, "unknown workload hepp .did you mean hep"),
        ({"optimizers": ["adam"]}, "--optimizers: unknown optimizer adam .did you mean adamw"),
        ({"size": "huge"}, "unknown size huge"),
        ({"ranks": (3,)}, "--ranks: 3 do not divide the batch of 32 examples of hep"),
        ({"data": {"hep": "/nowhere.h5"}}, "--data: hep: no file or folder /nowhere.h5"),
    ],
)
def test_impossible_plans(change, message):
    request = dataclasses.replace(Request(["hep"], ["sgd"], "tiny"), **change)
    with pytest.raises(InputError, match=message):
        plans.make(request)


def test_targets_from_options_and_files(tmp_path):
    file = tmp_path / "targets.yaml"
    file.write_text("hep: 0.9\ncosmoflow: none\n")
    assert plans.targets([str(file), "hep=1e-1"]) == {"hep": 0.1, "cosmoflow": None}
    file.write_text("hep: 0.9\ncosmo: 3\n")
    with pytest.raises(InputError, match="targets.yaml:2: unknown workload cosmo .did you mean"):
        plans.targets([str(file)])
    file.write_text("hep: high\n")
    with pytest.raises(InputError, match="targets.yaml:1: hep: expected a number, not 'high'"):
        plans.targets([str(file)])
    with pytest.raises(InputError, match="--target: expected WORKLOAD=VALUE or a YAML file"):
        plans.targets(["hep"])
    with pytest.raises(InputError, match="--data: hep is given twice"):
        plans.assignments(["hep=a", "hep=b"], "--data")


# ------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 0.1}, "unknown setting of kfac learning_rat .did you mean learning_rate"),
        ({"damping": 0.1}, "kfac needs a learning_rate above 0, not None"),
        ({"learning_rate": -1}, "above 0, not -1"),
        ({"learning_rate": "fast"}, "above 0, not 'fast'"),
        ({"learning_rate": 1, "schedule": "cosin"}, "unknown schedule cosin .did you mean cosine"),
        ({"learning_rate": 1, "warm_up": 2}, "warm_up is a number from 0 to 1"),
        ({"learning_rate": 1, "optimizer": "sgd"}, "unknown setting of kfac optimizer"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=f"^here: .*{message}"):
        optimizers.check("kfac", settings, "here")


def test_defaults_of_settings():
    assert optimizers.setting("kfac", {}, "eigen_interval") == 100
    assert optimizers.setting("kfac", {"eigen_interval": 5}, "eigen_interval") == 5
    assert optimizers.setting("sgd", {}, "eigen_interval") is None


def test_values_that_an_optimizer_refuses():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    build = optimizers.builder("kfac", {"learning_rate": 0.1, "damping": -1.0}, 10, model)
    with pytest.raises(InputError, match="settings of kfac: KFAC: damping must be positive"):
        build()


def test_the_schedule_is_everybodys():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    for name in ("sgd", "adamw", "muon", "kfac"):
        optimizer = optimizers.builder(name, {"learning_rate": 0.2}, 100, model)()
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        rates = [float(optimizer._learning_rate(step)) for step in (0, 4, 5, 100)]
        # Up over 5 of 100 steps, at the top when the cosine begins, at the end zero.
        assert rates == pytest.approx([0.04, 0.2, 0.2, 0.0], abs=1e-6)
    for schedule, middle in (("linear", 0.1), ("constant", 0.2)):
        rate = optimizers.learning_rate(
            {"learning_rate": 0.2, "schedule": schedule, "warm_up": 0}, 10
        )
        assert float(rate(5)) == pytest.approx(middle)


def test_the_clip_of_kfac_is_reckoned_with_the_schedules_peak():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = optimizers.builder("kfac", {"learning_rate": 0.3}, 10, model)()
    assert isinstance(optimizer, KFAC)
    assert optimizer.get_config()["kl_clip_learning_rate"] == 0.3


def test_muon_leaves_outputs_and_vectors_to_adamw():
    model = resnet8()
    assert optimizers.output_kernels(model) == {model.layers[-1].kernel.path}
    muon = optimizers.builder("muon", {"learning_rate": 0.02}, 10, model)()
    assert isinstance(muon, ConvolutionMuon)
    by_muon = [v for v in model.trainable_variables if not muon._should_use_adamw(v)]
    assert all(len(v.shape) == 4 for v in by_muon)
    kernels = sum(len(v.shape) == 4 for v in model.trainable_variables)
    assert len(by_muon) == kernels > 5


def test_several_outputs_and_features_are_told_apart():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    left = keras.layers.Activation("relu")(keras.layers.Dense(2, name="left")(hidden))
    both = keras.layers.Concatenate()([left, keras.layers.Dense(3, name="right")(hidden)])
    assert optimizers.output_kernels(keras.Model(inputs, both)) == {"left/kernel", "right/kernel"}
    features = keras.layers.Add()([hidden, inputs])
    assert optimizers.output_kernels(keras.Model(inputs, features)) == set()


# ------------------------------------------------------------------------------------- FLOPs


def spec(*shape):
    return tf.TensorSpec(shape, tf.float32)


def network(optimizer):
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(7), keras.layers.Dense(4), keras.layers.Dense(2)]
    )
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    return model


def test_products_of_the_network():
    assert products.of_network(network("sgd"), spec(3, 5), spec(3, 2)) == 3 * 2 * (35 + 28 + 8)


def test_products_of_muon_are_those_in_the_graph():
    batch = spec(3, 5), spec(3, 2)
    settings = {"learning_rate": 0.1}
    model = network("sgd")
    muon = optimizers.builder("muon", settings, 10, model)()
    model.compile(optimizer=muon, loss="mse", jit_compile=False)
    muon.build(model.trainable_variables)
    plain = flops.step_flops(network("sgd"), *batch)
    extra = flops.step_flops(model, *batch) - plain
    assert products.of_optimizer(model, lambda: network("sgd"), *batch) == extra > 0


def test_products_of_kfac_by_hand():
    batch = np.ones((3, 5), np.float32), np.ones((3, 2), np.float32)
    specs = spec(3, 5), spec(3, 2)
    model = network(KFAC(0.1, factor_interval=4, eigen_interval=20))
    model.train_on_batch(*batch)
    sides = [(6, 7), (8, 4), (5, 2)]  # inputs with a bias, outputs
    directions = sum(4 * (r * r * c + r * c * c) for r, c in sides)
    factors = sum(2 * 3 * (r * r + c * c) for r, c in sides)
    # The bias's row and column of a factor are sums, no products.
    least = sum(2 * 3 * ((r - 1) ** 2 + c * c) for r, c in sides)
    bases = sum(9 * (r**3 + c**3) for r, c in sides)
    got = products.of_optimizer(model, lambda: network("sgd"), *specs)
    assert got is not None
    assert directions + least / 4 + bases / 20 <= got <= directions + factors / 4 + bases / 20


def test_kfac_of_a_dilated_convolution_leaves_no_shape_open():
    """TensorFlow cuts such an image into batches whose shapes only its own graph knows."""

    def dilated(optimizer):
        model = keras.Sequential(
            [
                keras.Input((8, 9, 3)),
                keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2),
                keras.layers.DepthwiseConv2D(3, dilation_rate=2),
            ]
        )
        model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
        return model

    specs = spec(3, 8, 9, 3), spec(3, 4, 5, 4)
    model = dilated(KFAC(0.1))
    model.train_on_batch(*(np.ones(part.shape, np.float32) for part in specs))
    got = products.of_optimizer(model, lambda: dilated("sgd"), *specs)
    assert got is not None and got > 0


def test_sgd_and_adamw_multiply_nothing():
    specs = spec(3, 5), spec(3, 2)
    for name in ("sgd", "adamw"):
        assert products.of_optimizer(network(name), lambda: network("sgd"), *specs) == 0


# ----------------------------------------------------------------------------- time and speed


def test_speed_leaves_the_warm_up_out():
    seconds = [10.0, 9.0, 8.0, 7.0, 6.0, 1.0, 1.0, 2.0, 1.0, 1.0, 4.0, 1.0]
    found = speed(seconds, batch_size=22)
    assert found == Speed(5, 7, 22 * 7 / 11, median=1.0, longest=4.0)
    assert speed([3.0], batch_size=2) == Speed(1, 0)
    assert speed([], batch_size=2) == Speed(0, 0)


class Meter:
    """Joules that are given."""

    def __init__(self, *joules, source="measured"):
        self.joules, self.source = list(joules), source

    def update(self):
        self.now = self.joules.pop(0) if self.joules else None

    def reading(self):
        return Energy(self.now, self.source, "made up")


def test_a_pause_takes_neither_time_nor_energy():
    times = iter([100.0, 110.0, 112.0, 117.0, 120.0])
    watch = Stopwatch(Meter(30.0, 40.0, 90.0, 95.0), now=lambda: next(times))  # type: ignore[arg-type]
    first = watch.read()
    assert (first.seconds, first.energy.joules) == (10, 30)
    with watch.paused():
        pass
    last = watch.read()
    assert (last.seconds, last.energy.joules) == (15, 45)


def test_stated_watts_fill_in_for_missing_counters_only():
    times = iter([0.0, 10.0])
    missing = Meter(None, source="unavailable")
    watch = Stopwatch(missing, watts=50.0, now=lambda: next(times))  # type: ignore[arg-type]
    energy = watch.read().energy
    assert (energy.joules, energy.source) == (500, "estimated")
    times = iter([0.0, 10.0])
    watch = Stopwatch(Meter(7.0), watts=50.0, now=lambda: next(times))  # type: ignore[arg-type]
    assert watch.read().energy.joules == 7


def test_a_clock_that_goes_back_is_an_error():
    times = iter([5.0, 6.0, 5.5])
    watch = Stopwatch(now=lambda: next(times))
    watch.now()
    with pytest.raises(TrainingError, match="the clock went back by 0.5 s"):
        watch.now()


# ------------------------------------------------------------------------------------- records


def record_of(quality, target, higher=True, reached=None):
    plan = Plan("hep", "tiny", "sgd", {}, 32, 3, target=target)
    return Record(
        plan,
        "missed" if reached is None else "reached",
        "AUC",
        higher,
        (Evaluation(1, 10, 30.0, quality, 0.5),),
        time_to_quality=reached,
        flops_per_sample=1000.0,
    )


def test_what_follows_from_speed_quality_and_price():
    conditions = Conditions(price_per_hour=6.0, vflops_exponent=2.0, currency="EUR")
    found = trial.derived(record_of(0.5, 1.0), Speed(5, 10, 8.0, 0.25, 0.5), conditions)
    assert (found.flops_per_second, found.vflops) == (8000, 2000)
    assert (found.price_per_hour, found.currency, found.cost_to_quality) == (6, "EUR", None)
    assert (found.step_seconds, found.longest_step_seconds) == (0.25, 0.5)
    found = trial.derived(record_of(0.25, 0.5, False, 30.0), Speed(5, 10, 8.0), conditions)
    assert (found.vflops, found.cost_to_quality) == (8000, 0.05)  # twice as good, but capped
    nothing = trial.derived(record_of(None, 1.0), Speed(1, 0), Conditions())
    assert (nothing.samples_per_second, nothing.vflops, nothing.currency) == (None, None, None)
    assert trial.derived(record_of(0.0, 1.0, False), Speed(5, 10, 8.0), conditions).vflops is None


def test_the_hash_of_original_files_is_of_names_and_sizes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.h5").write_bytes(b"123")
    before = trial.data_hash(None, str(tmp_path))
    (tmp_path / "a" / "x.h5").write_bytes(b"456")
    assert trial.data_hash(None, str(tmp_path)) == before
    (tmp_path / "a" / "x.h5").write_bytes(b"4567")
    assert trial.data_hash(None, str(tmp_path)) != before


# ---------------------------------------------------------------------------------- log, system


def test_events_are_mlperfs(tmp_path):
    times = iter([1.5, 2.0, 2.25])
    with mllog.Log(tmp_path / "log", clock=lambda: next(times)) as log:
        log.point("seed", 3)
        log.start("eval_start", epoch_num=1)
        log.stop("eval_stop", epoch_num=1)
    line = (tmp_path / "log").read_text().splitlines()[0]
    assert line.startswith(":::MLLOG {")
    assert json.loads(line[9:])["namespace"] == ""
    assert [
        (e["time_ms"], e["event_type"], e["key"], e["value"], e["metadata"])
        for e in mllog.read(tmp_path / "log")
    ] == [
        (1500, "POINT_IN_TIME", "seed", 3, {}),
        (2000, "INTERVAL_START", "eval_start", None, {"epoch_num": 1}),
        (2250, "INTERVAL_END", "eval_stop", None, {"epoch_num": 1}),
    ]


def test_the_system_is_described(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = system.describe(("a GPU",), threads=2)
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 2 and found["gpus"] == ["a GPU"]
    assert found["versions"]["numpy"] == np.__version__
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert system.processor(info) == "Some CPU @ 3 GHz"
    assert (system.peak_memory() or 0) > 50e6  # TensorFlow alone is more


def test_the_commit_and_whether_it_was_changed(tmp_path):
    assert system.source(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    clean = system.source(tmp_path)
    assert clean is not None and len(clean["commit"]) == 40 and not clean["changed"]
    (tmp_path / "file").write_text("2")
    assert system.source(tmp_path) == {**clean, "changed": True}
    (tmp_path / "inside").mkdir()
    assert system.source(Path(tmp_path / "inside")) is None  # another project's
