"""The generated weather: storms obey their formulas, boxes hold them, maps are what they say."""

import numpy as np
import pytest

from models.data import atmosphere, storms
from models.data import extreme_weather as weather
from models.data.extreme_weather import CHANNELS, MEANS
from models.data.storms import CYCLONE, EXTRATROPICAL, RIVER


@pytest.fixture(scope="module")
def maps():
    return [weather.weather_map(np.random.default_rng([4, number])) for number in range(60)]


def channel(image, name):
    return image[..., CHANNELS.index(name)]


def still_air(where):
    return {name: np.zeros(where.shape) for name in CHANNELS}


def test_holland_at_a_worked_point():
    """At r = R the exponential is 1/e; f = 0 leaves V² = B Δp / (e ρ)."""
    pressure = storms.holland_pressure(np.array([1e5]), 5000, 1e5, 1.5)
    assert pressure[0] == pytest.approx(5000 * (np.exp(-1) - 1))
    wind = storms.holland_wind(np.array([1e5]), 5000, 1e5, 1.5, 0.0)
    assert wind[0] == pytest.approx(np.sqrt(1.5 * 5000 / np.e / 1.15))  # 48.98 m/s
    rim = storms.holland_rim(1e5, 1.5)
    assert storms.holland_pressure(np.array([rim]), 1, 1e5, 1.5)[0] == pytest.approx(-0.1)


def test_holland_wind_balances_its_pressure():
    """V²/r + |f| V = (1/ρ) dp/dr, the derivative by differences."""
    r = np.linspace(3e4, 8e5, 50)
    for f in (3e-5, -3e-5):
        wind = storms.holland_wind(r, 6000, 9e4, 1.4, f)
        step = 10.0
        slope = (
            storms.holland_pressure(r + step, 6000, 9e4, 1.4)
            - storms.holland_pressure(r - step, 6000, 9e4, 1.4)
        ) / (2 * step)
        np.testing.assert_allclose(wind**2 / r + abs(f) * wind, slope / 1.15, rtol=1e-4)


@pytest.mark.parametrize("hemisphere", [1, -1])
@pytest.mark.parametrize("kind", ["tropical", "extratropical"])
def test_cyclones_turn_as_their_hemisphere_demands(hemisphere, kind):
    where = atmosphere.grid((96, 144), hemisphere)
    fields = still_air(where)
    if kind == "tropical":
        storm = storms.add_tropical_storm(fields, where, 20, 45, 5000, 1e5, 1.5)
        assert storm.kind == CYCLONE
    else:
        storm = storms.add_extratropical_cyclone(fields, where, 45, 45, 3000, 4e5, 1.3, 0.4)
    top, left, bottom, right = (round(edge) for edge in storm.box)
    dy, dx = where.spacing
    vorticity = np.gradient(fields["V850"], dx, axis=1) - np.gradient(fields["U850"], dy, axis=0)
    middle = vorticity[(top + bottom) // 2, (left + right) // 2]
    assert middle * hemisphere > 2e-5
    # Nearer to the equator is the northern side in the south.
    assert (np.sign(np.diff(where.latitude[:, 0])) == hemisphere).all()
    deepest = np.unravel_index(fields["PSL"].argmin(), where.shape)
    assert top <= deepest[0] < bottom and left <= deepest[1] < right


def test_air_flows_into_a_tropical_cyclone_near_the_surface():
    where = atmosphere.grid((96, 144), 1)
    fields = still_air(where)
    storms.add_tropical_storm(fields, where, 20, 45, 5000, 1e5, 1.5)
    dy, dx = where.spacing

    def divergence(level):
        return np.gradient(fields[f"U{level}"], dx, axis=1) + np.gradient(
            fields[f"V{level}"], dy, axis=0
        )

    row, column = 32, 72
    near = np.s_[row - 2 : row + 3, column - 2 : column + 3]
    assert divergence("BOT")[near].mean() < -1e-5
    assert abs(divergence("850")[near].mean()) < 1e-6


def test_the_largest_wind_decides_the_class():
    where = atmosphere.grid((96, 144), 1)
    # (B Δp / (e ρ) + (R f / 2)²)^½ - R f / 2 with R f / 2 = 1.887 m/s: 16.1 and 17.8 m/s.
    # Without the Coriolis force both would be above 17.5.
    for deficit, kind in ((660, storms.DEPRESSION), (800, CYCLONE)):
        storm = storms.add_tropical_storm(still_air(where), where, 15, 40, deficit, 1e5, 1.5)
        assert storm.kind == kind
        assert storm.mask.any() == (kind == CYCLONE)


def test_box_of_a_cyclone_is_its_rim():
    where = atmosphere.grid((96, 144), 1)  # 0.625 degrees a pixel
    storm = storms.add_tropical_storm(still_air(where), where, 20, 45, 5000, 1e5, 1.5)
    rim = storms.holland_rim(1e5, 1.5) / 111.2e3 / 0.625
    np.testing.assert_allclose(storm.box, (32 - rim, 72 - rim, 32 + rim, 72 + rim), rtol=1e-6)
    # Half the box's side squared times pi, in pixels.
    assert storm.mask.sum() == pytest.approx(np.pi * rim**2, rel=0.1)


def test_random_fields_have_their_slope():
    shape = (128, 128)
    power = np.mean(
        [
            np.abs(np.fft.fft2(atmosphere.random_field(np.random.default_rng(s), shape))) ** 2
            for s in range(6)
        ],
        axis=0,
    )
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128, 1 / 128)] * 2, indexing="ij"))
    rings = [power[(k >= low) & (k < low + 4)].sum() for low in (10, 40)]
    # The sum over a ring falls as k^-3; its middle is at 12 and 42.
    assert np.log(rings[0] / rings[1]) / np.log(42 / 12) == pytest.approx(3, abs=0.2)


def test_background_winds_are_balanced():
    """Geostrophy outside the tropics: ρ f v = dp/dx, whatever the hemisphere."""
    for seed, hemisphere in enumerate((1, -1)):
        where = atmosphere.grid((96, 144), hemisphere)
        fields = atmosphere.background(np.random.default_rng(seed), where)
        slope = np.gradient(fields["PSL"], where.spacing[1], axis=1)
        wind = atmosphere.AIR_DENSITY * where.coriolis * fields["V850"]
        outside = where.latitude[:, 0] > 20
        np.testing.assert_allclose(slope[outside], wind[outside], atol=1e-9)
        assert fields["V850"].std() > 3


def test_maps_are_like_the_earth(maps):
    images = np.stack([image for image, _ in maps])
    assert images.shape == (60, 96, 144, 16)
    assert np.isfinite(images).all()
    assert channel(images, "TMQ").min() > 0 and channel(images, "TMQ").max() < 250
    assert channel(images, "PSL").min() > 88_000 and channel(images, "PSL").max() < 106_000
    assert channel(images, "PRECT").min() >= 0
    deviations = images.std((0, 1, 2)) / weather.DEVIATIONS
    assert deviations.min() > 0.8 and deviations.max() < 1.25
    shift = (images.mean((0, 1, 2), dtype=np.float64) - MEANS) / weather.DEVIATIONS
    assert np.abs(shift).max() < 0.15


def test_all_classes_are_there(maps):
    kinds = np.bincount([storm.kind for _, found in maps for storm in found], minlength=4)
    # Poisson means 0.7, 0.8, 1.0 and 0.7 a map, fewer for those on top of others.
    assert np.all(kinds >= 60 * 0.35) and np.all(kinds <= 60 * 1.3)
    assert all(found for _, found in maps)


def test_boxes_hold_their_storms(maps):
    for image, found in maps:
        for storm in found:
            top, left, bottom, right = storm.box
            assert 0 <= top < bottom <= 96 and 0 <= left < right <= 144
            if storm.mask.any():
                rows, columns = np.nonzero(storm.mask)
                assert top - 1 <= rows.min() and rows.max() <= bottom
                assert left - 1 <= columns.min() and columns.max() <= right
            if storm.kind == RIVER:
                outside = ~np.any([other.mask for other in found], axis=0)
                beside = outside & storm.mask.any(1)[:, None]
                water = channel(image, "TMQ")
                assert water[storm.mask].mean() > water[beside].mean() + 4


def test_the_lowest_pressure_alone_finds_few_storms(maps):
    """Simple rules must not do: the deepest pixel is often no storm's centre, or says no class."""
    hits = 0
    for image, found in maps:
        row, column = np.unravel_index(channel(image, "PSL").argmin(), (96, 144))
        lows = [s for s in found if s.kind != RIVER]
        hits += any(s.box[0] <= row <= s.box[2] and s.box[1] <= column <= s.box[3] for s in lows)
    total = sum(len(found) for _, found in maps)
    assert 0.1 < hits / total < 0.5


def test_arrays_say_what_is_on_the_maps():
    arrays = weather.weather_maps(3, seed=4, first=0)
    image, found = weather.weather_map(np.random.default_rng([4, 1]))
    boxes = arrays["boxes"][1]
    assert boxes.shape == (15, 5)
    assert np.all(boxes[len(found) :] == -1)
    np.testing.assert_array_equal(boxes[: len(found), 4], [storm.kind for storm in found])
    np.testing.assert_allclose(boxes[0, :4], found[0].box, rtol=1e-6)
    restored = arrays["images"][1].astype(np.float32) * weather.DEVIATIONS + MEANS
    np.testing.assert_allclose(restored[..., 0], image[..., 0], atol=0.1)
    masks = arrays["masks"][1]
    for storm in found:
        if storm.kind == EXTRATROPICAL:
            continue
        label = {CYCLONE: 1, RIVER: 2}.get(storm.kind)
        if label:
            assert (masks[storm.mask] == label).mean() > 0.5
    np.testing.assert_array_equal(
        weather.weather_maps(1, seed=4, first=1)["images"][0], arrays["images"][1]
    )


def test_coarse_maps_span_the_same_area():
    arrays = weather.weather_maps(2, seed=0, shape=(48, 72))
    assert arrays["images"].shape == (2, 48, 72, 16)
    present = arrays["boxes"][arrays["boxes"][..., 4] >= 0]
    assert present[:, 2].max() <= 48 and present[:, 3].max() <= 72
