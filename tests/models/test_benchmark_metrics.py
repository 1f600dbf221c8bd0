"""Figures of merit by hand-worked numbers, and energy from a tree of fake counters."""

import math

import pytest

from models.benchmark import metrics, power


def test_vflops():
    assert metrics.vflops(100.0, 0.5, 1.0, 5) == pytest.approx(100 / 32)
    assert metrics.vflops(100.0, 0.8, 0.4, 2) == 100  # capped
    assert metrics.vflops(100.0, 0.8, 0.4, 2, cap=None) == 400
    assert metrics.vflops(100.0, 0.4, 0.2, 1, higher_is_better=False) == 50
    with pytest.raises(ValueError, match="no ratio of quality 0.0"):
        metrics.vflops(100.0, 0.0, 0.2, 1, higher_is_better=False)


def test_time_to_quality():
    history = [(10.0, 0.5), (20.0, 0.7), (30.0, 0.6), (40.0, 0.9)]
    assert metrics.time_to_quality(history, 0.7) == 20
    assert metrics.time_to_quality(history, 0.95) is None
    assert metrics.time_to_quality(history, 0.5, higher_is_better=False) == 10
    with pytest.raises(ValueError, match="went back from 10.0 to 9.0"):
        metrics.time_to_quality([(10.0, 0.1), (9.0, 0.2)], 0.7)


def test_olympic_mean():
    assert metrics.olympic_mean([5.0, 1.0, 3.0, 4.0, 100.0]) == 4
    assert metrics.olympic_mean([2.0, None, 4.0]) == 4  # the one miss is the slowest
    assert metrics.olympic_mean([2.0, None, 4.0, None]) == math.inf
    with pytest.raises(ValueError, match="2 runs"):
        metrics.olympic_mean([1.0, 2.0])


def test_time_ratios_and_scores():
    times: dict[str, dict[str, float | None]] = {
        "a": {"x": 10.0, "y": 30.0, "z": None},
        "b": {"x": 20.0, "y": 15.0, "z": 7.0},
        "c": {"x": 100.0},
    }
    ratios = metrics.time_ratios(times)
    assert ratios["a"] == {"x": 1, "y": 2, "z": math.inf}
    assert ratios["c"] == {"x": 10, "y": math.inf, "z": math.inf}
    own = list(ratios["a"].values())
    assert [metrics.performance_profile(own, tau) for tau in (1, 1.9, 2, 4)] == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 2 / 3]
    )
    # From 1 to 2 a third, from 2 to 4 two thirds: (1/3 + 4/3) / 3.
    assert metrics.algoperf_score(own) == pytest.approx(5 / 9)
    assert metrics.algoperf_score(list(ratios["b"].values())) == pytest.approx((2 + 3 + 3) / 9)
    assert metrics.algoperf_score(list(ratios["c"].values())) == 0
    nobody = metrics.time_ratios({"a": {"x": None}, "b": {"x": None}})
    assert nobody["a"]["x"] == math.inf


def test_efficiencies():
    assert metrics.strong_scaling_efficiency(100.0, 30.0, 4) == pytest.approx(100 / 120)
    assert metrics.weak_scaling_efficiency(10.0, 12.5) == 0.8
    assert metrics.throughput_of_instances([(0.0, 50.0), (10.0, 60.0)]) == pytest.approx(2 / 60)
    assert metrics.cost(1800.0, 3.0, 2) == 3


# ------------------------------------------------------------------------------------- energy


@pytest.fixture
def tree(tmp_path):
    """Two packages and a part of one, as the kernel shows them."""

    def write(folder, name, microjoules, limit):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / folder / "max_energy_range_uj").write_text(f"{limit}\n")

    write("intel-rapl:0", "package-0", 1_000_000, 10_000_000)
    write("intel-rapl:0:0", "core", 77, 10_000_000)
    write("intel-rapl:1", "package-1", 9_500_000, 10_000_000)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def count(tree, package, microjoules):
    (tree / f"intel-rapl:{package}" / "energy_uj").write_text(f"{microjoules}\n")


def test_energy_of_counters_that_begin_again(tree):
    meter = power.EnergyMeter(tree, gpus=False)
    count(tree, 0, 3_000_000)  # 2 J
    count(tree, 1, 500_000)  # 0.5 J to the end and 0.5 J on
    meter.update()
    assert meter.reading() == power.Energy(3.0, "measured", "package-0, package-1")
    count(tree, 1, 250_000)  # all around once more: 9.75 J
    meter.update()
    assert meter.reading().joules == pytest.approx(12.75)


def test_unavailable_energy_says_why(tree, tmp_path):
    missing = power.EnergyMeter(tmp_path / "nowhere", gpus=False)
    missing.update()
    reading = missing.reading()
    assert (reading.joules, reading.source) == (None, "unavailable")
    assert "does not exist: no RAPL, as in most virtual machines" in reading.detail
    (tmp_path / "empty").mkdir()
    assert "has no intel-rapl:N" in power.EnergyMeter(tmp_path / "empty", False).reading().detail


def test_counters_for_root_alone(tree, monkeypatch):
    original = power.Path.read_text

    def refused(path, *arguments, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments, **options)

    monkeypatch.setattr(power.Path, "read_text", refused)
    reading = power.EnergyMeter(tree, gpus=False).reading()
    assert reading.source == "unavailable" and "root alone" in reading.detail


def test_a_counter_that_vanishes_makes_the_rest_worthless(tree):
    meter = power.EnergyMeter(tree, gpus=False)
    (tree / "intel-rapl:1" / "energy_uj").unlink()
    meter.update()
    assert meter.reading().source == "unavailable"
    assert "intel-rapl:1/energy_uj" in meter.reading().detail


def test_gpus_are_added(tree, monkeypatch):
    class Nvml:
        millijoules = 5000

        def nvmlDeviceGetTotalEnergyConsumption(self, device):
            return self.millijoules

    nvml = Nvml()
    monkeypatch.setattr(power, "_nvml", lambda: (nvml, ["device"]))
    meter = power.EnergyMeter(tree)
    nvml.millijoules = 7500
    meter.update()
    assert meter.reading() == power.Energy(2.5, "measured", "package-0, package-1, GPU 0")


def test_estimates_are_labelled():
    energy = power.estimate(10.0, 200.0, 0.25)
    assert energy.joules == 500 and energy.source == "estimated"
    assert energy.detail == "200 W x 25% load, as stated, not measured"
