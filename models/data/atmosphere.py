"""Weather without storms: the grid of a map, random fields in balance, moisture.

Units are SI (Pa, K, m/s, kg/m²) but for precipitation, in mm/h. Rows go from south to north.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LATITUDES, LONGITUDES = 60.0, 90.0  # degrees that a map spans
DEGREE = 111.2e3  # metres
EARTH_ROTATION = 7.292e-5
AIR_DENSITY = 1.15
GRAVITY = 9.81

# By channel.
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
