"""Weather maps with storms to find: sixteen channels of a climate model, boxes and masks.

A map spans latitudes 0 to 60 degrees of either hemisphere and 90 degrees of longitude. Random
streamfunctions make its winds and pressures, and these are laid over it:

- tropical depressions and cyclones: Holland's (1980) pressure and gradient wind. What their largest
  wind is decides which of the two they are, as it does by definition;
- extratropical cyclones: larger, elongated Gaussian lows with a cold and a warm sector;
- atmospheric rivers: curved filaments of moisture and wind from the subtropics polewards.

Units are SI (Pa, K, m/s, kg/m²) but for precipitation, in mm/h. Rows go from south to north.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.data.generated import Arrays, cached

VERSION = 1  # of what is generated: raise it when the same seed gives something else
# Those of CAM5 in the ExtremeWeather and ClimateNet data, in their order.
CHANNELS = (
    *("TMQ", "U850", "V850", "UBOT", "VBOT", "QREFHT", "PS", "PSL"),
    *("T200", "T500", "PRECT", "TS", "TREFHT", "Z1000", "Z200", "ZBOT"),
)
CLASSES = (
    *("tropical depression", "tropical cyclone"),
    *("extratropical cyclone", "atmospheric river"),
)
DEPRESSION, CYCLONE, EXTRATROPICAL, RIVER = range(4)
MASKS = ("background", "tropical cyclone", "atmospheric river")
MAXIMUM_BOXES = 15
NO_CLASS = -1

LATITUDES, LONGITUDES = 60.0, 90.0  # degrees that a map spans
DEGREE = 111.2e3  # metres
EARTH_ROTATION = 7.292e-5
AIR_DENSITY = 1.15
GRAVITY = 9.81
CYCLONE_WIND = 17.5  # m/s, 34 knots: a depression's largest wind is below
INFLOW = np.deg2rad(20)  # of a tropical cyclone's wind near the surface
RECOVERED = 0.9  # part of the pressure deficit that is regained at the rim of a cyclone's box

# Of normalised maps, by channel; measured over 200 of them.
# fmt: off
MEANS = np.array((24.3, 0.876, 0.0, 0.597, 0.0, 0.0101, 101_070, 101_190,
                  220.3, 259.8, 0.259, 290.4, 289.4, 105.2, 12_084, 60.5), np.float32)
DEVIATIONS = np.array((17.2, 8.1, 6.95, 5.79, 5.0, 0.00501, 552, 544,
                       1.46, 6.74, 0.535, 8.68, 8.77, 48.2, 220, 1.85), np.float32)
# fmt: on

Fields = dict[str, np.ndarray]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a map are, in metres, and what the Coriolis parameter is there.

    Attributes:
        shape: rows and columns.
        y, x: distances from the equator (rows x 1) and from the western edge (1 x columns).
        latitude: in degrees, rows x 1, positive in both hemispheres.
        coriolis: its parameter f, rows x 1, negative in the south.
        hemisphere: 1 or -1.
    """

    shape: tuple[int, int]
    y: np.ndarray
    x: np.ndarray
    latitude: np.ndarray
    coriolis: np.ndarray
    hemisphere: int

    @property
    def spacing(self) -> tuple[float, float]:
        """Metres between rows and between columns (those of the equator, everywhere)."""
        return LATITUDES * DEGREE / self.shape[0], LONGITUDES * DEGREE / self.shape[1]


def grid(shape: tuple[int, int], hemisphere: int) -> Grid:
    """A map's grid; in the southern hemisphere the first row is the southernmost, at 60 degrees."""
    rows, columns = shape
    latitude = (np.arange(rows) + 0.5) * LATITUDES / rows
    if hemisphere < 0:
        latitude = latitude[::-1]
    latitude = latitude[:, None]
    x = (np.arange(columns) + 0.5)[None, :] * LONGITUDES / columns * DEGREE
    coriolis = hemisphere * 2 * EARTH_ROTATION * np.sin(np.deg2rad(latitude))
    return Grid(shape, hemisphere * latitude * DEGREE, x, latitude, coriolis, hemisphere)


def random_field(
    random: np.random.Generator, shape: tuple[int, int], slope: float = 3.0, largest: float = 6.0
) -> np.ndarray:
    """A periodic Gaussian field of mean 0 and variance 1.

    Args:
        random: one normal number is drawn for each pixel.
        shape: rows and columns.
        slope: the power in a ring of wave numbers k falls as k^-slope.
        largest: wave number, in waves per map, below which power is flat.
    """
    rows, columns = shape
    ky = np.fft.fftfreq(rows, 1 / rows)[:, None] * columns / rows  # waves over the same distance
    kx = np.fft.rfftfreq(columns, 1 / columns)[None, :]
    k = np.sqrt(kx**2 + ky**2)
    # A ring holds of the order of k modes.
    amplitude = np.maximum(k, largest) ** (-(slope + 1) / 2)
    amplitude[0, 0] = 0
    field = np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) * amplitude, s=shape)
    return field / field.std()


def holland_pressure(
    distance: np.ndarray, deficit: float, radius: float, sharpness: float
) -> np.ndarray:
    """Pressure in a tropical cyclone minus that around it: Δp (exp(-(R/r)^B) - 1)."""
    return deficit * (np.exp(-((radius / distance) ** sharpness)) - 1)


def holland_wind(
    distance: np.ndarray, deficit: float, radius: float, sharpness: float, coriolis: float
) -> np.ndarray:
    """The gradient wind of `holland_pressure`: pressure, Coriolis and centrifugal force balance.

    V = (B Δp/ρ (R/r)^B exp(-(R/r)^B) + (r f/2)²)^½ - r |f|/2.
    """
    ratio = (radius / distance) ** sharpness
    half = distance * abs(coriolis) / 2
    return np.sqrt(sharpness * deficit / AIR_DENSITY * ratio * np.exp(-ratio) + half**2) - half


def holland_rim(radius: float, sharpness: float) -> float:
    """Where the part `RECOVERED` of the pressure deficit is regained."""
    return float(radius * (-np.log(RECOVERED)) ** (-1 / sharpness))


def saturation_humidity(temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Specific humidity of saturated air in kg/kg, by Bolton's formula."""
    celsius = temperature - 273.15
    vapour = 611.2 * np.exp(17.67 * celsius / (celsius + 243.5))
    return 0.622 * vapour / pressure


def background(random: np.random.Generator, where: Grid) -> Fields:
    """A map without storms.

    Winds are those of a streamfunction, turned around it as the hemisphere demands; pressure and
    heights go with it as in geostrophic balance, with a Coriolis parameter of 15 degrees at least.
    """
    shape, latitude = where.shape, np.deg2rad(where.latitude)
    polewards = np.sin(latitude) ** 2
    zeros = np.zeros(shape)
    balance = np.sign(where.coriolis) * np.maximum(
        np.abs(where.coriolis), 2 * EARTH_ROTATION * np.sin(np.deg2rad(15))
    )

    low = 1.6e6 * random_field(random, shape)  # m²/s
    high = 1.5 * low + 4e6 * random_field(random, shape)
    dy, dx = where.spacing

    def winds(stream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -np.gradient(stream, dy, axis=0), np.gradient(stream, dx, axis=1)

    trades = -7 * np.cos(4.5 * latitude) * np.exp(-0.5 * latitude)
    u, v = winds(low)
    surface = 301 - 36 * polewards + 1.5 * random_field(random, shape, largest=4)
    air = surface - 1 + random_field(random, shape, slope=2.5)
    pressure = 101_300 - 600 * np.cos(6 * latitude) + AIR_DENSITY * balance * low
    moist = np.exp(0.25 * random_field(random, shape, slope=2.5))
    water = (8 + 42 * np.exp(-((where.latitude / 24) ** 2))) * moist
    rain = 0.1 * (water / 25) * np.exp(random_field(random, shape, slope=2))
    bottom_u, bottom_v = (
        0.7 * wind + 0.8 * random_field(random, shape, slope=2) for wind in (trades + u, v)
    )
    relative = np.clip(0.78 + 0.06 * random_field(random, shape, slope=2.5), 0.3, 1)
    return {
        "TMQ": water,
        "U850": trades + u,
        "V850": v,
        "UBOT": bottom_u,
        "VBOT": bottom_v,
        "QREFHT": relative * saturation_humidity(air, pressure),
        "PS": pressure - 150 * np.abs(random_field(random, shape)),
        "PSL": pressure,
        "T200": 219 + 4 * polewards + random_field(random, shape),
        "T500": 268 - 28 * polewards + balance * high / 1000,
        "PRECT": rain,
        "TS": surface,
        "TREFHT": air,
        "Z1000": zeros,  # from the pressure, when all storms are there
        "Z200": 12_350 - 900 * polewards + balance * high / GRAVITY,
        "ZBOT": zeros,
    }


@dataclass(frozen=True)
class Storm:
    """What was put on a map.

    Attributes:
        kind: number of its class.
        box: its extent in pixels, top (lowest row), left, bottom, right, as floats.
        mask: its pixels, rows x columns; all False for classes that have none.
    """

    kind: int
    box: tuple[float, float, float, float]
    mask: np.ndarray


def _place(where: Grid, latitude: float, longitude: float) -> tuple[float, float]:
    """y and x in metres of a point."""
    return where.hemisphere * latitude * DEGREE, longitude * DEGREE


def _box(where: Grid, south: float, west: float, north: float, east: float) -> tuple[float, ...]:
    """Metres to pixels, cut at the map's edges."""
    dy, dx = where.spacing
    origin = 0.0 if where.hemisphere > 0 else -LATITUDES * DEGREE
    corners = (south - origin) / dy, west / dx, (north - origin) / dy, east / dx
    limits = [*where.shape, *where.shape]
    return tuple(float(np.clip(c, 0, limit)) for c, limit in zip(corners, limits, strict=True))


def add_tropical_storm(
    fields: Fields,
    where: Grid,
    latitude: float,
    longitude: float,
    deficit: float,
    radius: float,
    sharpness: float,
) -> Storm:
    """Lays a tropical depression or cyclone over the map, changing `fields`.

    Args:
        fields: by channel.
        where: their grid.
        latitude, longitude: of its centre, in degrees from the equator and the western edge.
        deficit: Δp in Pa.
        radius: R of the largest wind, in metres.
        sharpness: B.
    """
    y, x = _place(where, latitude, longitude)
    north, east = where.y - y, where.x - x
    distance = np.maximum(np.hypot(north, east), 0.2 * radius)
    f = where.hemisphere * 2 * EARTH_ROTATION * float(np.sin(np.deg2rad(latitude)))
    rim = holland_rim(radius, sharpness)
    # Beyond its rim the storm gives way to the weather around it.
    fading = np.exp(-(np.maximum(distance / rim - 1, 0) ** 2))
    wind = holland_wind(distance, deficit, radius, sharpness, f) * fading
    anomaly = holland_pressure(distance, deficit, radius, sharpness)

    unit_east, unit_north = east / distance, north / distance
    turn = where.hemisphere  # counterclockwise in the north
    for suffix, strength, inflow in (("850", 1.0, 0.0), ("BOT", 0.8, INFLOW)):
        along, inwards = np.cos(inflow) * wind * strength, np.sin(inflow) * wind * strength
        fields[f"U{suffix}"] = (
            fields[f"U{suffix}"] - turn * unit_north * along - unit_east * inwards
        )
        fields[f"V{suffix}"] = (
            fields[f"V{suffix}"] + turn * unit_east * along - unit_north * inwards
        )
    for channel in ("PSL", "PS"):
        fields[channel] = fields[channel] + anomaly
    core = np.exp(-((distance / rim) ** 2))
    strength = deficit / 5000
    fields["T200"] = fields["T200"] + 5 * strength * core
    fields["T500"] = fields["T500"] + 4 * strength * core
    fields["TMQ"] = fields["TMQ"] + 18 * core * min(1.0, 0.5 + strength)
    fields["PRECT"] = fields["PRECT"] + 6 * core * min(1.0, 0.2 + strength)
    fields["Z200"] = fields["Z200"] + 60 * strength * core
    sample = np.linspace(0.5 * radius, 3 * radius, 200)
    largest = holland_wind(sample, deficit, radius, sharpness, f).max()
    kind = CYCLONE if largest >= CYCLONE_WIND else DEPRESSION
    mask = (np.hypot(north, east) <= rim) & (kind == CYCLONE)
    return Storm(kind, _box(where, y - rim, x - rim, y + rim, x + rim), mask)  # type: ignore[arg-type]


def add_extratropical_cyclone(
    fields: Fields,
    where: Grid,
    latitude: float,
    longitude: float,
    deficit: float,
    radius: float,
    elongation: float,
    tilt: float,
) -> Storm:
    """Lays a mid-latitude low over the map, changing `fields`.

    Args:
        deficit: of pressure in the centre, in Pa.
        radius: standard deviation of the Gaussian low along its shorter axis, in metres.
        elongation: how much longer the other axis is.
        tilt: of the longer axis, in radians from east.
    """
    y, x = _place(where, latitude, longitude)
    north, east = where.y - y, where.x - x
    along = np.cos(tilt) * east + np.sin(tilt) * north
    across = -np.sin(tilt) * east + np.cos(tilt) * north
    low = np.exp(-((along / elongation) ** 2 + across**2) / (2 * radius**2))
    anomaly = -deficit * low
    f = where.hemisphere * 2 * EARTH_ROTATION * float(np.sin(np.deg2rad(latitude)))
    # Geostrophic wind around it, from the derivatives of the anomaly, weaker than straight flow's
    # by the centrifugal force.
    d_along = -along / (elongation * radius) ** 2 * anomaly
    d_across = -across / radius**2 * anomaly
    d_east = np.cos(tilt) * d_along - np.sin(tilt) * d_across
    d_north = np.sin(tilt) * d_along + np.cos(tilt) * d_across
    for suffix, strength in (("850", 0.7), ("BOT", 0.5)):
        fields[f"U{suffix}"] = fields[f"U{suffix}"] - strength * d_north / (AIR_DENSITY * f)
        fields[f"V{suffix}"] = fields[f"V{suffix}"] + strength * d_east / (AIR_DENSITY * f)
    for channel in ("PSL", "PS"):
        fields[channel] = fields[channel] + anomaly
    # Warm air comes polewards to the east of it, cold air equatorwards to the west.
    sector = np.tanh(east / radius) * low
    strength = deficit / 3000
    for channel, change in (("TREFHT", 6.0), ("T500", 5.0)):
        fields[channel] = fields[channel] + strength * (change * sector - 0.3 * change * low)
    fields["T200"] = fields["T200"] + 3 * strength * low
    fields["Z200"] = fields["Z200"] - 150 * strength * low
    front = np.exp(-(((east - 0.6 * radius) / (0.5 * radius)) ** 2)) * low
    fields["TMQ"] = fields["TMQ"] + 8 * front
    fields["PRECT"] = fields["PRECT"] + 1.5 * strength * front
    # The ellipse on which the part RECOVERED of the deficit is regained, and what holds it.
    reach = radius * np.sqrt(-2 * np.log(1 - RECOVERED)) * 0.8
    half_east = reach * np.hypot(elongation * np.cos(tilt), np.sin(tilt))
    half_north = reach * np.hypot(elongation * np.sin(tilt), np.cos(tilt))
    box = _box(where, y - half_north, x - half_east, y + half_north, x + half_east)
    return Storm(EXTRATROPICAL, box, np.zeros(where.shape, bool))  # type: ignore[arg-type]


def add_atmospheric_river(
    fields: Fields,
    where: Grid,
    points: np.ndarray,
    width: float,
    moisture: float,
    wind: float,
) -> Storm:
    """Lays a filament of moisture over the map, changing `fields`.

    Args:
        points: its beginning, the point it bends towards and its end, 3 x (latitude, longitude).
        width: standard deviation across, in metres.
        moisture: water that it adds in its middle, in kg/m².
        wind: along it, in m/s.
    """
    parameter = np.linspace(0, 1, 40)[:, None]
    start, bend, end = (np.array(_place(where, *point)) for point in points)
    curve = (
        (1 - parameter) ** 2 * start + 2 * parameter * (1 - parameter) * bend + parameter**2 * end
    )
    tangent = np.gradient(curve, axis=0)
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    # The nearest of the curve's points for every pixel.
    squared = (where.y[..., None] - curve[:, 0]) ** 2 + (where.x[..., None] - curve[:, 1]) ** 2
    nearest = squared.argmin(-1)
    profile = np.exp(-squared.min(-1) / (2 * width**2))
    fields["TMQ"] = fields["TMQ"] + moisture * profile
    fields["PRECT"] = fields["PRECT"] + 1.2 * (moisture / 20) * profile
    fields["QREFHT"] = fields["QREFHT"] * (1 + 0.15 * profile)
    for channel, strength, axis in (
        *(("U850", 1.0, 1), ("V850", 1.0, 0)),
        *(("UBOT", 0.6, 1), ("VBOT", 0.6, 0)),
    ):
        fields[channel] = fields[channel] + strength * wind * profile * tangent[nearest, axis]
    mask = profile > 0.5
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    return Storm(RIVER, tuple(float(edge) for edge in box), mask)  # type: ignore[arg-type]


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
