"""Universes for parameter estimation: particle counts at four redshifts, from first principles.

A Gaussian density field with the linear power spectrum of cold dark matter (Bardeen, Bond, Kaiser
and Szalay 1986, "BBKS") displaces a lattice of particles along its potential's gradient (Zel'dovich
1970), further the later. Counting them in cells gives what CosmoFlow's N-body simulations are
reduced to, without their nonlinear small scales. Lengths are in Mpc/h, wave numbers in h/Mpc.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.data.generated import Arrays, cached

VERSION = 1  # of what is generated: raise it when the same seed gives something else
REDSHIFTS = (0.0, 0.5, 1.5, 3.0)
CELL = 4.0  # Mpc/h; below it particles would have crossed, which this approximation cannot follow
PARAMETERS = ("omega_m", "sigma8", "spectral_index", "hubble")
MEANS = (0.3, 0.8, 0.96, 70.0)
SPREAD = 0.1  # parameters are uniform within this fraction of their means
# Of log(1 + count) over cells and universes at each redshift, about the same for any size.
LOG_MEANS = (0.513, 0.535, 0.570, 0.597)
LOG_DEVIATIONS = (0.569, 0.547, 0.498, 0.461)
SLAB = 4  # cells that a slice is thick
SLICE_SCALE = 4.0  # count at which a slice's value is 0


@dataclass(frozen=True)
class Cosmology:
    """A flat universe of cold dark matter and a cosmological constant.

    Attributes:
        omega_m: density of matter, in units of the critical one.
        sigma8: standard deviation today, in linear theory, of the density in spheres of 8 Mpc/h.
        spectral_index: exponent of the primordial power spectrum.
        hubble: the Hubble constant in km/s/Mpc.
    """

    omega_m: float = MEANS[0]
    sigma8: float = MEANS[1]
    spectral_index: float = MEANS[2]
    hubble: float = MEANS[3]


def transfer_function(k: Any, cosmology: Cosmology) -> Any:
    """BBKS's fit (their equation G3) with shape parameter Γ = Ωm h; 1 for k -> 0."""
    q = np.maximum(k / (cosmology.omega_m * cosmology.hubble / 100), 1e-12)
    polynomial = 1 + 3.89 * q + (16.1 * q) ** 2 + (5.46 * q) ** 3 + (6.71 * q) ** 4
    return np.log1p(2.34 * q) / (2.34 * q) * polynomial**-0.25


def power_spectrum(k: Any, cosmology: Cosmology) -> Any:
    """The linear P(k) today in (Mpc/h)³, proportional to k^n T(k)² and normalised to σ8."""
    amplitude = (cosmology.sigma8 / _unnormalised_deviation(cosmology)) ** 2
    return amplitude * _shape(k, cosmology)


def _shape(k: Any, cosmology: Cosmology) -> Any:
    return k**cosmology.spectral_index * transfer_function(k, cosmology) ** 2


def sphere_window(x: Any) -> Any:
    """Fourier transform of a sphere of radius R and volume 1 at k = x / R."""
    x = np.maximum(x, 1e-3)  # where it is 1 - 1e-7
    return 3 * (np.sin(x) - x * np.cos(x)) / x**3


def _integral(values: np.ndarray, places: np.ndarray) -> float:
    """By the trapezoidal rule."""
    return float(np.sum((values[1:] + values[:-1]) * np.diff(places)) / 2)


@functools.lru_cache(maxsize=64)
def _unnormalised_deviation(cosmology: Cosmology, radius: float = 8.0) -> float:
    log_k = np.linspace(np.log(1e-4), np.log(1e2), 2000)
    k = np.exp(log_k)
    integrand = k**3 / (2 * np.pi**2) * _shape(k, cosmology) * sphere_window(k * radius) ** 2
    return float(np.sqrt(_integral(integrand, log_k)))


def growth_factor(redshift: float, omega_m: float) -> float:
    """How far linear perturbations have grown, in units of today (1 at redshift 0).

    D is proportional to E(a) ∫₀^a da' / (a' E(a'))³ with E² = Ωm a⁻³ + 1 - Ωm.
    """

    def unnormalised(a: float) -> float:
        scale = np.linspace(0, a, 513)
        integrand = (scale / (omega_m + (1 - omega_m) * scale**3)) ** 1.5
        return float(np.sqrt(omega_m * a**-3 + 1 - omega_m)) * _integral(integrand, scale)

    return unnormalised(1 / (1 + redshift)) / unnormalised(1.0)


@functools.lru_cache(maxsize=4)
def _wave_numbers(cells: int, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """|k| on the half grid of a real transform, and its three components, 3 x n x n x n/2+1.

    The components are 0 at the Nyquist frequency, where a derivative of a real field is.
    """
    full = 2 * np.pi * np.fft.fftfreq(cells, cell)
    half = 2 * np.pi * np.fft.rfftfreq(cells, cell)
    components = np.stack(np.meshgrid(full, full, half, indexing="ij"))
    norm = np.sqrt((components**2).sum(0))
    if cells % 2 == 0:
        components[np.isclose(np.abs(components), np.pi / cell)] = 0
    return norm.astype(np.float32), components.astype(np.float32)


def density_field(
    random: np.random.Generator, cosmology: Cosmology, cells: int, cell: float = CELL
) -> np.ndarray:
    """The Fourier transform of today's linear density contrast in a periodic box.

    Args:
        random: one standard normal number is drawn for each cell.
        cells: of a side.
        cell: its length in Mpc/h.

    Returns:
        n x n x n/2+1, complex; `np.fft.irfftn` of it is the contrast, whose mean is 0.
    """
    noise = np.fft.rfftn(random.standard_normal((cells, cells, cells), np.float32))
    norm, _ = _wave_numbers(cells, cell)
    amplitude = np.zeros_like(norm)
    inside = norm > 0
    # Interpolated in logarithms: the spectrum has few curves, the grid many points.
    table = np.geomspace(norm[inside].min(), norm.max(), 200)
    spectrum = np.log(power_spectrum(table, cosmology))
    amplitude[inside] = np.exp(0.5 * np.interp(np.log(norm[inside]), np.log(table), spectrum))
    return noise * (amplitude / np.float32(cell**1.5))


def displacement(contrast: np.ndarray, cells: int, cell: float = CELL) -> np.ndarray:
    """Zel'dovich's displacement ψ = ∇∇⁻²(-δ), so that δ = -∇·ψ; 3 x n x n x n in Mpc/h, for D = 1.

    Args:
        contrast: Fourier transform of the density contrast, from `density_field`.
    """
    norm, components = _wave_numbers(cells, cell)
    potential = 1j * contrast / np.maximum(norm, 1e-6).astype(np.float32) ** 2
    return np.fft.irfftn(components * potential, s=(cells,) * 3, axes=(1, 2, 3))


def particle_counts(shift: np.ndarray, start: Any = 0.5) -> np.ndarray:
    """Particles in each cell after one from each cell was displaced.

    Args:
        shift: 3 x n x n x n, in cells; the box is periodic.
        start: where in its cell, 0 to 1, each begins: 3 x n x n x n, or one number for all.

    Returns:
        n x n x n integers whose sum is n³.
    """
    cells = shift.shape[1]
    lattice = np.arange(cells, dtype=np.float32)
    end = shift + np.asarray(start, np.float32)
    place = np.zeros(shift.shape[1:], np.int64)
    for axis in range(3):
        along = lattice.reshape([-1 if other == axis else 1 for other in range(3)])
        place = place * cells + np.floor(along + end[axis]).astype(np.int64) % cells
    return np.bincount(place.reshape(-1), minlength=cells**3).reshape(shift.shape[1:])


def universe(
    random: np.random.Generator,
    cosmology: Cosmology,
    cells: int,
    cell: float = CELL,
    redshifts: Sequence[float] = REDSHIFTS,
) -> np.ndarray:
    """Particle counts at several redshifts of one box, n x n x n x redshifts, int16.

    A particle starts anywhere in its cell. From the centres, none would leave its cell before it
    has moved by half of one, and early structure would be too weak on all scales.
    """
    shift = displacement(density_field(random, cosmology, cells, cell), cells, cell) / cell
    start = random.random(shift.shape, np.float32)
    growths = [np.float32(growth_factor(redshift, cosmology.omega_m)) for redshift in redshifts]
    counts = [particle_counts(growth * shift, start) for growth in growths]
    return np.stack(counts, axis=-1).astype(np.int16)


def measured_power_spectrum(
    contrast: np.ndarray, cell: float, bins: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean |δ(k)|² of a periodic field in shells of |k|, in as many dimensions as it has.

    Args:
        contrast: n x ... x n, of mean 0.
        cell: side of a cell.
        bins: shells of equal width up to the Nyquist frequency; default: n / 2.

    Returns:
        Mean |k| of each shell's modes, and P there, in units of length to the dimension.
    """
    cells, dimensions = contrast.shape[0], contrast.ndim
    bins = bins or cells // 2
    full = 2 * np.pi * np.fft.fftfreq(cells, cell)
    norm = np.sqrt(sum(k**2 for k in np.meshgrid(*[full] * dimensions, indexing="ij")))
    power = np.abs(np.fft.fftn(contrast)) ** 2 * cell**dimensions / cells**dimensions
    fundamental, nyquist = full[1], np.pi / cell
    shell = np.floor((norm - fundamental / 2) / (nyquist / bins)).astype(int)
    kept = (norm > 0) & (shell < bins)
    modes = np.maximum(np.bincount(shell[kept], minlength=bins), 1)
    mean_k = np.bincount(shell[kept], norm[kept], bins) / modes
    return mean_k, np.bincount(shell[kept], power[kept], bins) / modes


# ------------------------------------------------------------------------------------ data sets


def scaled_targets(parameters: np.ndarray) -> np.ndarray:
    """Cosmological parameters, N x 4, as targets in [-1, 1]."""
    means = np.array(MEANS)
    return ((parameters - means) / (SPREAD * means)).astype(np.float32)


def volumes(
    examples: int, seed: int, cells: int = 32, first: int = 0, cache: Path | None = None
) -> Arrays:
    """Universes and the parameters that they were made with.

    Args:
        examples: how many.
        seed: of all of them; an example depends on its number and the seed alone.
        cells: of a side.
        first: number of the first example.
        cache: directory for `cached`.

    Returns:
        `counts`, N x n x n x n x 4 int16, and `targets`, N x 4 in [-1, 1].
    """

    def make() -> Arrays:
        counts = np.empty((examples, cells, cells, cells, len(REDSHIFTS)), np.int16)
        parameters = np.empty((examples, len(PARAMETERS)))
        for number in range(examples):
            random = np.random.default_rng([seed, first + number])
            parameters[number] = np.array(MEANS) * (1 + SPREAD * random.uniform(-1, 1, 4))
            counts[number] = universe(random, Cosmology(*parameters[number]), cells)
        return {"counts": counts, "targets": scaled_targets(parameters)}

    made_from = dict(
        version=VERSION, examples=examples, seed=seed, cells=cells, first=first, cell=CELL
    )
    return cached(cache, f"cosmology-{examples}x{cells}", made_from, make)


def log_counts(counts: np.ndarray) -> np.ndarray:
    """log(1 + counts) in float32, CosmoFlow's network input."""
    return np.log1p(counts.astype(np.float32))


def standardised_counts(counts: np.ndarray) -> np.ndarray:
    """log(1 + count) with mean 0 and variance 1 at each redshift: N x n x n x n x 4, float32."""
    means, deviations = (np.array(v, np.float32) for v in (LOG_MEANS, LOG_DEVIATIONS))
    return (log_counts(counts) - means) / deviations


def symmetric_copies(
    inputs: np.ndarray, targets: Any, random: np.random.Generator
) -> tuple[np.ndarray, Any]:
    """Moves, turns and mirrors each periodic box at random: 48 n³ copies that are as likely.

    Args:
        inputs: N x n x n x n x channels.
        targets: unchanged.
    """
    copies = np.empty_like(inputs)
    for copy, volume in zip(copies, inputs, strict=True):
        turned = volume.transpose([*random.permutation(3), 3])
        flips = tuple(slice(None, None, int(step)) for step in random.choice([-1, 1], 3))
        copy[:] = np.roll(turned[flips], tuple(random.integers(0, len(volume), 3)), (0, 1, 2))
    return copies, targets


def slices(
    examples: int, seed: int, cells: int = 64, first: int = 0, cache: Path | None = None
) -> Arrays:
    """Slabs of today's universes seen from above, for a network that draws such images.

    All are of the mean cosmology. A pixel's count c becomes (c - 4) / (c + 4): empty space is -1,
    the mean 0, and the densest knots stay below 1.

    Args:
        examples: how many; each box gives cells / 4 slabs of 4 cells, which do not overlap.
        seed, first, cache: as for `volumes`; `first` counts boxes.
        cells: of a side.

    Returns:
        `images`, N x n x n x 1 in [-1, 1), float32.
    """
    slabs = cells // SLAB

    def make() -> Arrays:
        boxes = -(-examples // slabs)
        images = np.empty((boxes, slabs, cells, cells), np.float32)
        for number in range(boxes):
            random = np.random.default_rng([seed, first + number])
            counts = universe(random, Cosmology(), cells, redshifts=(0.0,))[..., 0]
            columns = counts.reshape(slabs, SLAB, cells, cells).sum(1).astype(np.float32)
            images[number] = (columns - SLICE_SCALE) / (columns + SLICE_SCALE)
        return {"images": images.reshape(-1, cells, cells, 1)[:examples]}

    made_from = dict(
        version=VERSION, examples=examples, seed=seed, cells=cells, first=first, cell=CELL
    )
    return cached(cache, f"cosmology-slices-{examples}x{cells}", made_from, make)


def slice_counts(images: np.ndarray) -> np.ndarray:
    """The inverse of the map to [-1, 1): particles in each pixel's column."""
    bounded = np.clip(images, -1, 0.98)
    return SLICE_SCALE * (1 + bounded) / (1 - bounded)
