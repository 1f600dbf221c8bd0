"""Energy from hardware counters: RAPL for processors, NVML for GPUs; measured or said not to be.

A reading carries a source: `measured` from counters, `estimated` only where asked for, from a power
that somebody states, or `unavailable` with the reason.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
MEASURED, ESTIMATED, UNAVAILABLE = "measured", "estimated", "unavailable"


@dataclasses.dataclass(frozen=True)
class Energy:
    """Joules of a stretch of time.

    Attributes:
        joules: None where they are unavailable.
        source: MEASURED, ESTIMATED or UNAVAILABLE.
        detail: the counters, the assumption, or the reason.
    """

    joules: float | None
    source: str
    detail: str


def estimate(seconds: float, watts: float, load: float) -> Energy:
    """Energy from a stated power, labelled as the assumption that it is.

    Args:
        seconds: of the stretch.
        watts: of the machine at full load, such as its thermal design power.
        load: mean fraction of it, 0 to 1.
    """
    detail = f"{watts:g} W x {load:.0%} load, as stated, not measured"
    return Energy(seconds * watts * load, ESTIMATED, detail)


@dataclasses.dataclass(frozen=True)
class Zone:
    """One RAPL counter.

    Attributes:
        name: such as `package-0`.
        counter: file with its microjoules.
        range: microjoules after which it begins at 0 again.
    """

    name: str
    counter: Path
    range: int


def rapl_zones(root: Path = POWERCAP) -> list[Zone]:
    """The processors' counters, one for each package; parts of packages are no zones of their own.

    AMD's processors have them under the same names.

    Raises:
        OSError: there are none, or they may not be read: the message says which.
    """
    if not root.is_dir():
        raise OSError(f"{root} does not exist: no RAPL, as in most virtual machines")
    zones = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") > 1:  # core, uncore, dram: inside of a package or beside it
            continue
        zone = Zone(
            (folder / "name").read_text().strip(),
            folder / "energy_uj",
            int((folder / "max_energy_range_uj").read_text()),
        )
        try:
            zone.counter.read_text()
        except PermissionError as error:
            raise OSError(f"{zone.counter} may be read by root alone (Linux 5.10 on)") from error
        zones.append(zone)
    if not zones:
        raise OSError(f"{root} has no intel-rapl:N: no RAPL, as in most virtual machines")
    return zones


def counted(before: int, after: int, limit: int) -> int:
    """What a counter counted between two readings; it has begun again at 0 once at most."""
    return after - before if after >= before else after + limit - before


class EnergyMeter:
    """Adds up what the processors' and GPUs' counters count.

    RAPL counters begin again after some 260 kJ, an hour at full load or less: call `update` more
    often than that, at each evaluation for instance.

    Args:
        root: of the powercap tree.
        gpus: read NVML, too, if its library and package are there.

    Example:

    >>> meter = EnergyMeter()
    >>> meter.update()
    >>> meter.reading().source in (MEASURED, UNAVAILABLE)
    True
    """

    def __init__(self, root: Path = POWERCAP, gpus: bool = True) -> None:
        self._joules = 0.0
        self._reasons: list[str] = []
        self._zones: list[Zone] = []
        try:
            self._zones = rapl_zones(root)
        except (OSError, ValueError) as error:
            self._reasons.append(str(error))
        self._readings = [self._read(zone) for zone in self._zones]
        self._nvml: Any = None
        self._devices: list[Any] = []
        if gpus:
            self._nvml, self._devices = _nvml()
        self._millijoules = self._read_gpus()

    def update(self) -> None:
        """Takes a reading, and adds what was counted since the last one."""
        for number, zone in enumerate(self._zones):
            now, before = self._read(zone), self._readings[number]
            if now is not None and before is not None:
                self._joules += counted(before, now, zone.range) / 1e6
            self._readings[number] = now
        millijoules = self._read_gpus()
        for before, after in zip(self._millijoules, millijoules, strict=True):
            self._joules += (after - before) / 1e3
        self._millijoules = millijoules

    def reading(self) -> Energy:
        """Energy between the meter's making and its last `update`."""
        if self._reasons:
            # GPUs alone would pass for the machine.
            return Energy(None, UNAVAILABLE, "; ".join(self._reasons))
        names = [zone.name for zone in self._zones]
        names += [f"GPU {number}" for number in range(len(self._devices))]
        return Energy(self._joules, MEASURED, ", ".join(names))

    def _read(self, zone: Zone) -> int | None:
        try:
            return int(zone.counter.read_text())
        except (OSError, ValueError) as error:
            self._reasons.append(f"{zone.counter}: {error}")
            return None

    def _read_gpus(self) -> Sequence[int]:
        return [self._nvml.nvmlDeviceGetTotalEnergyConsumption(d) for d in self._devices]


def _nvml() -> tuple[Any, list[Any]]:
    """NVIDIA's library and its devices that count energy; none where anything is missing."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        devices = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
        for device in devices:
            nvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except Exception:  # whatever a missing package, driver or counter leads to
        return None, []
    return nvml, devices
