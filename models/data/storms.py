"""Storms that are laid over a weather map, with their boxes and masks.

- tropical depressions and cyclones: Holland's (1980) pressure and gradient wind. What their largest
  wind is decides which of the two they are, as it does by definition;
- extratropical cyclones: larger, elongated Gaussian lows with a cold and a warm sector;
- atmospheric rivers: curved filaments of moisture and wind from the subtropics polewards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.data.atmosphere import AIR_DENSITY, DEGREE, EARTH_ROTATION, LATITUDES, Fields, Grid

CLASSES = (
    *("tropical depression", "tropical cyclone"),
    *("extratropical cyclone", "atmospheric river"),
)
DEPRESSION, CYCLONE, EXTRATROPICAL, RIVER = range(4)
CYCLONE_WIND = 17.5  # m/s, 34 knots: a depression's largest wind is below
INFLOW = np.deg2rad(20)  # of a tropical cyclone's wind near the surface
RECOVERED = 0.9  # part of the pressure deficit that is regained at the rim of a cyclone's box


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
