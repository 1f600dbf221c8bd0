"""Weather maps with storms to find: sixteen channels of a climate model, boxes and masks.

A map spans latitudes 0 to 60 degrees of either hemisphere and 90 degrees of longitude. Random
streamfunctions make its winds and pressures (`atmosphere`), and storms of four kinds are laid over
it (`storms`). Units are SI (Pa, K, m/s, kg/m²) but for precipitation, in mm/h. Rows go from south
to north.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.data.atmosphere import AIR_DENSITY, GRAVITY, background, grid
from models.data.generated import Arrays, cached
from models.data.storms import (
    CYCLONE,
    EXTRATROPICAL,
    RIVER,
    Storm,
    add_atmospheric_river,
    add_extratropical_cyclone,
    add_tropical_storm,
)

VERSION = 1  # of what is generated: raise it when the same seed gives something else
# Those of CAM5 in the ExtremeWeather and ClimateNet data, in their order.
CHANNELS = (
    *("TMQ", "U850", "V850", "UBOT", "VBOT", "QREFHT", "PS", "PSL"),
    *("T200", "T500", "PRECT", "TS", "TREFHT", "Z1000", "Z200", "ZBOT"),
)
MASKS = ("background", "tropical cyclone", "atmospheric river")
MAXIMUM_BOXES = 15
NO_CLASS = -1

# Of normalised maps, by channel; measured over 200 of them.
# fmt: off
MEANS = np.array((24.3, 0.876, 0.0, 0.597, 0.0, 0.0101, 101_070, 101_190,
                  220.3, 259.8, 0.259, 290.4, 289.4, 105.2, 12_084, 60.5), np.float32)
DEVIATIONS = np.array((17.2, 8.1, 6.95, 5.79, 5.0, 0.00501, 552, 544,
                       1.46, 6.74, 0.535, 8.68, 8.77, 48.2, 220, 1.85), np.float32)
# fmt: on


def _apart(box: tuple[float, ...], others: list[Storm]) -> bool:
    """Whether the middle of no cyclone's box is inside another's."""

    def inside(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
        y, x = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
        return outer[0] <= y <= outer[2] and outer[1] <= x <= outer[3]

    cyclones = [other for other in others if other.kind != RIVER]
    return not any(inside(box, o.box) or inside(o.box, box) for o in cyclones)


def weather_map(
    random: np.random.Generator, shape: tuple[int, int] = (96, 144)
) -> tuple[np.ndarray, list[Storm]]:
    """A map with storms.

    Returns:
        rows x columns x 16 in physical units, and what is on it: of each class one on average, more
        or less; at least one in all.
    """
    where = grid(shape, 1 if random.random() < 0.5 else -1)
    fields = background(random, where)
    storms: list[Storm] = []
    counts = random.poisson((0.7, 0.8, 1.0, 0.7))
    if counts.sum() == 0:
        counts[random.integers(4)] = 1

    for _ in range(counts[RIVER]):
        begin = random.uniform([12, 10], [22, 55])
        end = begin + random.uniform([20, 12], [30, 32])
        bend = (begin + end) / 2 + random.uniform(-8, 8, 2)
        storms.append(
            add_atmospheric_river(
                fields,
                where,
                np.stack([begin, bend, end]),
                width=random.uniform(140e3, 230e3),
                moisture=random.uniform(12, 24),
                wind=random.uniform(8, 18),
            )
        )
    for kind in [EXTRATROPICAL] * counts[EXTRATROPICAL] + [CYCLONE] * counts[:2].sum():
        changed = dict(fields)
        longitude = random.uniform(6, 84)
        if kind == EXTRATROPICAL:
            storm = add_extratropical_cyclone(
                changed,
                where,
                latitude=random.uniform(34, 54),
                longitude=longitude,
                deficit=random.uniform(1200, 4000),
                radius=random.uniform(300e3, 550e3),
                elongation=random.uniform(1, 1.7),
                tilt=random.uniform(-0.8, 0.8),
            )
        else:
            strong = random.random() < counts[CYCLONE] / counts[:2].sum()
            storm = add_tropical_storm(
                changed,
                where,
                latitude=random.uniform(8, 28),
                longitude=longitude,
                deficit=random.uniform(1500, 8000) if strong else random.uniform(350, 800),
                radius=random.uniform(70e3, 150e3),
                sharpness=random.uniform(1.2, 1.8),
            )
        # A storm on top of another one is no observation: leave it out.
        if _apart(storm.box, storms):
            fields = changed
            storms.append(storm)

    fields["Z1000"] = (fields["PSL"] - 100_000) / (AIR_DENSITY * GRAVITY)
    fields["ZBOT"] = 60 * fields["TREFHT"] / 288 + 0.002 * fields["Z1000"]
    fields["PRECT"] = np.maximum(fields["PRECT"], 0)
    image = np.stack([fields[channel] for channel in CHANNELS], axis=-1)
    return image.astype(np.float32), storms[:MAXIMUM_BOXES]


def weather_maps(
    examples: int,
    seed: int,
    shape: tuple[int, int] = (96, 144),
    first: int = 0,
    cache: Path | None = None,
) -> Arrays:
    """Normalised maps, boxes and masks.

    Args:
        examples: how many.
        seed: of all of them; a map depends on its number and the seed alone.
        shape: rows and columns; maps span the same area whatever they are.
        first: number of the first map.
        cache: directory for `cached`.

    Returns:
        `images`, N x rows x columns x 16 float16; `boxes`, N x 15 x 5 float32: top, left, bottom,
        right in pixels and the class, -1 in all five where there is none; `masks`, N x rows x
        columns uint8, numbers of `MASKS`.
    """

    def make() -> Arrays:
        images = np.empty((examples, *shape, len(CHANNELS)), np.float16)
        boxes = np.full((examples, MAXIMUM_BOXES, 5), NO_CLASS, np.float32)
        masks = np.zeros((examples, *shape), np.uint8)
        for number in range(examples):
            random = np.random.default_rng([seed, first + number])
            image, storms = weather_map(random, shape)
            images[number] = (image - MEANS) / DEVIATIONS
            for place, storm in enumerate(storms):
                boxes[number, place] = (*storm.box, storm.kind)
            for label, kind in ((2, RIVER), (1, CYCLONE)):  # cyclones on top
                for storm in storms:
                    if storm.kind == kind:
                        masks[number][storm.mask] = label
        return {"images": images, "boxes": boxes, "masks": masks}

    made_from = dict(version=VERSION, examples=examples, seed=seed, shape=shape, first=first)
    return cached(cache, f"weather-{examples}x{shape[0]}x{shape[1]}", made_from, make)
