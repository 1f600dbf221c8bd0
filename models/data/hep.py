"""Collisions in a detector: heavy pairs that decay to three quarks each, against ordinary jets.

A toy of the search that HEP-CNN was made for (R-parity violating gluinos against QCD multijets), as
images of the unrolled detector with three channels. Both classes are two sprays of particles back
to back; they differ in how a spray splits:

- signal: a heavy particle decays, to three quarks that share its momentum evenly (a flat phase
  space) at angles of the order of 2 m / pT;
- background: a light parton radiates, each time a soft fraction z at a small angle θ, which have
  the probability dz/z dθ/θ of QCD's leading logarithms.

Quarks become jets of particles with falling momenta around an axis. Momenta are in GeV; η runs from
-2.5 to 2.5 and φ once around.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.data.generated import Arrays, cached

VERSION = 1  # of what is generated: raise it when the same seed gives something else
CHANNELS = ("energy", "electromagnetic fraction", "tracks")
ETA_RANGE = 2.5

# Calibrated so that a linear classifier of simple features has an AUC near 0.75.
MOMENTUM = 400.0  # median of the two sprays' transverse momenta together
MOMENTUM_SPREAD = 0.35  # of its logarithm
MASS = 80.0
MASS_SPREAD = 0.4  # of its logarithm, for the width and what the detector adds
EVENNESS = 2.0  # of the momenta's shares in a decay: 1 is any share, more is nearer thirds
SOFTEST, NARROWEST, WIDEST = 0.035, 0.08, 1.2  # fractions z and angles θ of radiation
JET_WIDTH = 0.08
PILE_UP = 80  # soft particles, anywhere
PILE_UP_MOMENTUM = 0.8
CHARGED, NEUTRAL_PION = 0.6, 0.28  # of a jet's particles; pions go to photons


def _three_body_decay(
    random: np.random.Generator, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """Momenta (3) and directions (3 x 2, around the parent's) of a heavy particle's quarks."""
    mass = MASS * np.exp(MASS_SPREAD * random.standard_normal())
    shares = random.dirichlet([EVENNESS] * 3)
    angle = random.uniform(0, 2 * np.pi) + 2 * np.pi / 3 * np.arange(3)
    angle += 0.3 * random.standard_normal(3)
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    directions -= shares @ directions  # transverse momenta balance
    # For directions d with Σ s d = 0 the mass is pT (Σ s |d|²)^½.
    spread = np.sqrt(shares @ (directions**2).sum(1))
    return momentum * shares, directions * (mass / momentum / spread)


def _radiation(random: np.random.Generator, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """The same of a light parton that radiates twice."""
    momenta, directions = np.array([momentum]), np.zeros((1, 2))
    for _ in range(2):
        fraction = SOFTEST * (0.5 / SOFTEST) ** random.random()
        opening = NARROWEST * (WIDEST / NARROWEST) ** random.random()
        angle = random.uniform(0, 2 * np.pi)
        apart = opening * np.array([np.cos(angle), np.sin(angle)])
        parent = momenta.argmax()
        soft = fraction * momenta[parent]
        momenta = np.append(momenta, soft)
        directions = np.vstack([directions, directions[parent] + (1 - fraction) * apart])
        momenta[parent] -= soft
        directions[parent] -= fraction * apart
    return momenta, directions


def collision(random: np.random.Generator, signal: bool, size: int) -> np.ndarray:
    """One event's image, size x size x 3: energy, electromagnetic fraction, number of tracks.

    Rows are φ, which closes; columns are η.
    """
    total = MOMENTUM * np.exp(MOMENTUM_SPREAD * random.standard_normal())
    phi = random.uniform(0, 2 * np.pi)
    momenta, axes = [], []
    for side in range(2):
        split = _three_body_decay if signal else _radiation
        shares, directions = split(random, total / 2)
        axis = np.array([random.normal(0, 0.8), phi + np.pi * side + 0.1 * random.normal()])
        momenta.append(shares)
        axes.append(axis + directions)
    jet_momenta, jet_axes = np.concatenate(momenta), np.concatenate(axes)

    numbers = 2 + random.poisson(4 * np.log1p(jet_momenta / 10))
    jet = np.repeat(np.arange(len(numbers)), numbers)
    weights = random.exponential(size=len(jet))
    fractions = weights / np.bincount(jet, weights)[jet]
    # Harder particles are nearer to the axis.
    distances = JET_WIDTH * random.exponential(size=len(jet)) / np.sqrt(0.2 + weights)
    around = random.uniform(0, 2 * np.pi, len(jet))
    offsets = distances[:, None] * np.stack([np.cos(around), np.sin(around)], axis=1)
    soft = random.poisson(PILE_UP)
    anywhere = random.uniform([-ETA_RANGE, 0], [ETA_RANGE, 2 * np.pi], (soft, 2))

    momentum = np.concatenate(
        [fractions * jet_momenta[jet], random.exponential(PILE_UP_MOMENTUM, soft)]
    )
    place = np.concatenate([jet_axes[jet] + offsets, anywhere])
    kind = random.random(len(momentum))
    return _image(momentum, place, kind < CHARGED, kind > 1 - NEUTRAL_PION, size)


def _image(
    momentum: np.ndarray, place: np.ndarray, charged: np.ndarray, photon: np.ndarray, size: int
) -> np.ndarray:
    column = np.floor((place[:, 0] + ETA_RANGE) / (2 * ETA_RANGE) * size).astype(np.int64)
    row = np.floor(place[:, 1] / (2 * np.pi) * size).astype(np.int64) % size
    seen = (column >= 0) & (column < size)
    cell = row[seen] * size + column[seen]

    def histogram(weights: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights[seen], size * size)

    energy = histogram(momentum)
    electromagnetic = histogram(momentum * photon) / np.maximum(energy, 1e-6)
    channels = [energy, electromagnetic, histogram(charged.astype(float))]
    return np.stack(channels, axis=-1).reshape(size, size, 3).astype(np.float32)


def collisions(
    examples: int, seed: int, size: int = 64, first: int = 0, cache: Path | None = None
) -> Arrays:
    """Images and labels of events, each class half of the time.

    Args:
        examples: how many.
        seed: of all of them; an event depends on its number and the seed alone.
        size: pixels of a side.
        first: number of the first event.
        cache: directory for `cached`.

    Returns:
        `images`, N x size x size x 3 float16, and `labels`, N, 1 for signal.
    """

    def make() -> Arrays:
        images = np.empty((examples, size, size, 3), np.float16)
        labels = np.empty(examples, np.int32)
        for number in range(examples):
            random = np.random.default_rng([seed, first + number])
            labels[number] = random.random() < 0.5
            images[number] = collision(random, bool(labels[number]), size)
        return {"images": images, "labels": labels}

    made_from = dict(version=VERSION, examples=examples, seed=seed, size=size, first=first)
    return cached(cache, f"hep-{examples}x{size}", made_from, make)


def network_inputs(images: np.ndarray) -> np.ndarray:
    """Energy and tracks as logarithms, since both fall steeply; all about 0 to 5, float32."""
    inputs = images.astype(np.float32)
    inputs[..., 0] = np.log1p(inputs[..., 0])
    inputs[..., 2] = np.log1p(inputs[..., 2])
    return inputs


def simple_features(images: np.ndarray) -> np.ndarray:
    """What one would cut on without looking at the image, N x 6, about normalised logarithms.

    Total energy, the hottest cell, cells above 1 and above 10 GeV, tracks, and the electromagnetic
    part of the energy.
    """
    images = images.astype(np.float64)
    energy, electromagnetic, tracks = np.moveaxis(images.reshape(len(images), -1, 3), -1, 0)
    total = energy.sum(1)
    return np.stack(
        [
            np.log(total / 400),
            np.log(energy.max(1) / 60),
            np.log((energy > 1).sum(1) / 80),
            np.log1p((energy > 10).sum(1)) - 2.5,
            np.log(tracks.sum(1) / 90),
            4 * ((energy * electromagnetic).sum(1) / total - 0.28),
        ],
        axis=1,
    )


def flipped(
    inputs: np.ndarray, targets: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Turns each event around the beam and mirrors it along both axes, at random."""
    copies = np.empty_like(inputs)
    for copy, image in zip(copies, inputs, strict=True):
        rows, columns = (int(step) for step in random.choice([-1, 1], 2))
        copy[:] = np.roll(image[::rows, ::columns], random.integers(len(image)), axis=0)
    return copies, targets
