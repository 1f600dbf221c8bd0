"""The generated universes have the statistics that theory says."""

import numpy as np
import pytest

from models.data import cosmology
from models.data.cosmology import CELL, Cosmology

CELLS = 32


@pytest.fixture(scope="module")
def fields():
    """Density contrasts of eight boxes of the mean cosmology, 8 x n x n x n."""
    spectra = [
        cosmology.density_field(np.random.default_rng(seed), Cosmology(), CELLS)
        for seed in range(8)
    ]
    return np.stack([np.fft.irfftn(s, s=(CELLS,) * 3, axes=(0, 1, 2)) for s in spectra])


def test_transfer_function_at_a_worked_point():
    # Γ = 0.5 * 0.8 = 0.4 and k = 0.4 h/Mpc: q = 1.
    expected = np.log(3.34) / 2.34 * (1 + 3.89 + 16.1**2 + 5.46**3 + 6.71**4) ** -0.25
    got = cosmology.transfer_function(0.4, Cosmology(omega_m=0.5, hubble=80))
    assert got == pytest.approx(expected)
    assert cosmology.transfer_function(1e-6, Cosmology()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("cells", [16, 24])
def test_standardised_counts_have_no_mean_and_unit_variance(cells):
    inputs = cosmology.standardised_counts(cosmology.volumes(40, 7, cells)["counts"])
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs.mean((0, 1, 2, 3)), 0, atol=0.03)
    np.testing.assert_allclose(inputs.std((0, 1, 2, 3)), 1, atol=0.03)


@pytest.mark.parametrize("index", [0.9, 1.05])
def test_power_spectrum_rises_with_the_index_and_falls_as_dark_matter_does(index):
    def slope(k):
        low, high = cosmology.power_spectrum(np.array([k, 1.01 * k]), universe)
        return np.log(high / low) / np.log(1.01)

    universe = Cosmology(spectral_index=index)
    assert slope(1e-4) == pytest.approx(index, abs=0.02)
    # T ~ ln(k) / k²: the exponent n - 4, and two inverse logarithms on top
    k = 1e4
    assert slope(k) == pytest.approx(index - 4 + 2 / np.log(2.34 * k / 0.21), abs=0.01)


def test_power_spectrum_is_normalised_to_sigma8():
    """By another integration rule than the module's: linear k instead of logarithmic."""
    universe = Cosmology(sigma8=0.73)
    k = np.linspace(1e-4, 8, 400_001)
    x = 8 * k
    window = 3 * (np.sin(x) / x - np.cos(x)) / x**2
    variance = np.trapezoid(k**2 * cosmology.power_spectrum(k, universe) * window**2, k)
    assert np.sqrt(variance / (2 * np.pi**2)) == pytest.approx(0.73, rel=2e-3)


def test_growth():
    # Without a cosmological constant perturbations grow as the scale factor.
    assert cosmology.growth_factor(3.0, 1.0) == pytest.approx(0.25, rel=1e-5)
    # Early on all universes are like that; today Carroll, Press and Turner (1992) fit
    # g = 5/2 Ω / (Ω^(4/7) - Λ + (1 + Ω/2)(1 + Λ/70)), to a percent or two.
    early = cosmology.growth_factor(99.0, 0.3) / 0.01
    fit = 2.5 * 0.3 / (0.3 ** (4 / 7) - 0.7 + 1.15 * 1.01)
    assert 1 / early == pytest.approx(fit, rel=0.01)


def test_fields_have_the_power_spectrum_asked_for(fields):
    measured = [cosmology.measured_power_spectrum(field, CELL) for field in fields]
    k = measured[0][0]
    power = np.mean([p for _, p in measured], axis=0)
    # Shells of k hold 2 pi (k/k0)² independent modes and more, eight boxes each: the relative
    # error of a mean of exponentials. The first shell, 13 modes, is skipped for the bin's width.
    error = 1 / np.sqrt(8 * 2 * np.pi * (k * CELLS * CELL / (2 * np.pi)) ** 2)
    deviation = power / cosmology.power_spectrum(k, Cosmology()) - 1
    assert np.all(np.abs(deviation[1:]) < 4 * error[1:] + 0.01)
    slope = np.polyfit(np.log(k[1:]), np.log(power[1:]), 1)[0]
    expected = np.polyfit(np.log(k[1:]), np.log(cosmology.power_spectrum(k[1:], Cosmology())), 1)
    assert slope == pytest.approx(expected[0], abs=0.03)


def test_fields_vary_by_sigma8_in_spheres_of_8_mpc(fields):
    full = 2 * np.pi * np.fft.fftfreq(CELLS, CELL)
    norm = np.sqrt(sum(k**2 for k in np.meshgrid(full, full, full, indexing="ij")))
    window = cosmology.sphere_window(8 * norm)
    transformed = np.fft.fftn(fields, axes=(1, 2, 3))
    smoothed = np.fft.ifftn(transformed * window, axes=(1, 2, 3)).real
    # What a box of this size and resolution can hold of it: 0.75 of 0.8.
    inside = norm > 0
    power = cosmology.power_spectrum(norm[inside], Cosmology()) * window[inside] ** 2
    held = np.sqrt(power.sum() / (CELLS * CELL) ** 3)
    assert held == pytest.approx(0.8, rel=0.08)
    assert smoothed.std() == pytest.approx(held, rel=0.06)


def test_displacement_has_the_density_as_its_convergence():
    """On one plane wave δ = cos(k x): ψ = -sin(k x) / k, along x alone."""
    k = 2 * np.pi * 3 / (CELLS * CELL)
    x = np.arange(CELLS) * CELL
    wave = np.broadcast_to(np.cos(k * x)[:, None, None], (CELLS,) * 3)
    shift = cosmology.displacement(np.fft.rfftn(wave), CELLS)
    expected = np.broadcast_to((-np.sin(k * x) / k)[:, None, None], (CELLS,) * 3)
    np.testing.assert_allclose(shift[0], expected, atol=1e-4)
    np.testing.assert_allclose(shift[1:], 0, atol=1e-4)


def test_particles_are_counted_where_they_go():
    shift = np.zeros((3, 4, 4, 4), np.float32)
    shift[0, 3, 1, 2] = 1.0  # out of one side and in at the other
    shift[2, 0, 0, 0] = -0.6
    counts = cosmology.particle_counts(shift)
    assert counts.sum() == 64
    assert (counts[3, 1, 2], counts[0, 1, 2]) == (0, 2)
    assert (counts[0, 0, 0], counts[0, 0, 3]) == (0, 2)


def test_structure_grows_with_time():
    """On large scales the contrast of counts is linear: power goes as the growth factor squared."""
    cells = 64
    counts = cosmology.universe(np.random.default_rng(5), Cosmology(), cells)
    powers = [
        cosmology.measured_power_spectrum(counts[..., channel] - 1.0, CELL)[1][:2].sum()
        for channel in range(4)
    ]
    for redshift, power in zip(cosmology.REDSHIFTS, powers, strict=True):
        expected = cosmology.growth_factor(redshift, 0.3) ** 2
        assert power / powers[0] == pytest.approx(expected, rel=0.1)


def test_volumes_depend_on_seed_and_number_alone():
    some = cosmology.volumes(3, seed=1, cells=8)
    assert some["counts"].shape == (3, 8, 8, 8, 4)
    assert some["counts"].sum() == 3 * 4 * 8**3
    later = cosmology.volumes(1, seed=1, cells=8, first=2)
    np.testing.assert_array_equal(later["counts"][0], some["counts"][2])
    np.testing.assert_array_equal(later["targets"][0], some["targets"][2])
    assert not np.array_equal(cosmology.volumes(1, 2, 8)["counts"][0], some["counts"][0])


def test_targets_are_spread_over_their_range():
    parameters = np.array([cosmology.MEANS, 1.1 * np.array(cosmology.MEANS)])
    np.testing.assert_allclose(cosmology.scaled_targets(parameters), [[0] * 4, [1] * 4], atol=1e-6)
    targets = cosmology.volumes(300, seed=0, cells=2)["targets"]
    assert np.all(np.abs(targets) <= 1)
    # uniform: mean 0 ± 0.033, mean modulus 0.5 ± 0.017
    np.testing.assert_allclose(targets.mean(0), 0, atol=0.14)
    np.testing.assert_allclose(np.abs(targets).mean(0), 0.5, atol=0.07)


def test_symmetric_copies_keep_what_is_invariant():
    counts = cosmology.volumes(2, seed=3, cells=8)["counts"].astype(np.float32)
    copies, targets = cosmology.symmetric_copies(counts, "targets", np.random.default_rng(0))
    assert targets == "targets"
    assert not np.array_equal(copies, counts)
    for copy, original in zip(copies, counts, strict=True):
        for channel in range(4):
            _, power = cosmology.measured_power_spectrum(original[..., channel] - 1, CELL)
            _, moved = cosmology.measured_power_spectrum(copy[..., channel] - 1, CELL)
            np.testing.assert_allclose(moved, power, rtol=1e-6)


def test_slices_can_be_counted_again():
    images = cosmology.slices(20, seed=2, cells=16)["images"]
    assert images.shape == (20, 16, 16, 1)
    assert -1 <= images.min() < -0.9 < 0.4 < images.max() < 1
    counts = cosmology.slice_counts(images)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    # Four slabs are a box: no particle is lost.
    assert counts[:16].reshape(4, -1).sum(1) == pytest.approx([16**3] * 4)
