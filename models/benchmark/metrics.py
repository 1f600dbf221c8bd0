"""Figures of merit, as pure functions: speeds, times to a quality, scores and efficiencies.

A time is None where the quality was not reached; it counts as infinite.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

ALGOPERF_LIMIT = 4.0  # times the best, beyond which a time counts no more


def vflops(
    flops_per_second: float,
    quality: float,
    target: float,
    exponent: float,
    higher_is_better: bool = True,
    cap: float | None = 1.0,
) -> float:
    """HPC AI500 V2's "valid FLOPS": speed times (quality / target)^n.

    Args:
        flops_per_second: of the model's products; the optimizer's are no part of it.
        quality: achieved.
        target: of the workload.
        exponent: n: 5 for image classification in HPC AI500 V2.
        higher_is_better: False inverts the ratio, for errors and distances; HPC AI500 has none.
        cap: upper bound of the ratio; None, as in HPC AI500, lets a quality above the target count
            as more FLOPS than the machine had.

    Raises:
        ValueError: if quality or target is not positive where it divides, or is negative.
    """
    if target <= 0 or quality < 0 or (quality == 0 and not higher_is_better):
        raise ValueError(f"no ratio of quality {quality} and target {target}")
    ratio = quality / target if higher_is_better else target / quality
    if cap is not None:
        ratio = min(ratio, cap)
    return flops_per_second * ratio**exponent


def time_to_quality(
    history: Sequence[tuple[float, float]], target: float, higher_is_better: bool = True
) -> float | None:
    """Seconds until an evaluation first reached the target, or None.

    Args:
        history: (seconds since the start, quality) of each evaluation, in order.
        target: reached when the quality is at least (or at most) this.
        higher_is_better: which of the two.

    Raises:
        ValueError: if the seconds do not increase.
    """
    previous = -math.inf
    for seconds, quality in history:
        if seconds < previous:
            raise ValueError(f"the clock went back from {previous} to {seconds} s")
        previous = seconds
        if quality >= target if higher_is_better else quality <= target:
            return seconds
    return None


def olympic_mean(times: Sequence[float | None]) -> float:
    """MLPerf's result of several runs: the mean without the fastest and the slowest.

    One miss is the slowest run; with two the result is infinite.

    Raises:
        ValueError: with fewer than three runs.
    """
    if len(times) < 3:
        raise ValueError(f"{len(times)} runs: without the fastest and slowest none is left")
    kept = sorted(math.inf if t is None else t for t in times)[1:-1]
    return math.inf if math.inf in kept else statistics.fmean(kept)


def time_ratios(
    times: Mapping[str, Mapping[str, float | None]],
) -> dict[str, dict[str, float]]:
    """Each contestant's time over the best one's, workload by workload.

    Args:
        times: by contestant and workload; a workload that is missing is a miss.

    Returns:
        By contestant and workload; infinite for misses, and where nobody reached the target.
    """
    workloads = sorted({workload for own in times.values() for workload in own})

    def time(contestant: str, workload: str) -> float:
        value = times[contestant].get(workload)
        return math.inf if value is None else value

    best = {w: min(time(contestant, w) for contestant in times) for w in workloads}
    return {
        contestant: {
            w: time(contestant, w) / best[w] if math.isfinite(time(contestant, w)) else math.inf
            for w in workloads
        }
        for contestant in times
    }


def performance_profile(ratios: Sequence[float], tau: float) -> float:
    """Share of workloads whose time is within `tau` times the best (Dolan and Moré 2002)."""
    return sum(ratio <= tau for ratio in ratios) / len(ratios)


def algoperf_score(ratios: Sequence[float], limit: float = ALGOPERF_LIMIT) -> float:
    """The mean of the performance profile from 1 to `limit`: 1 is best everywhere, 0 nowhere near.

    A step function's integral: each workload adds limit - ratio.
    """
    total = sum(max(limit - ratio, 0.0) for ratio in ratios)
    return total / (len(ratios) * (limit - 1))


def strong_scaling_efficiency(seconds_on_one: float, seconds: float, ranks: int) -> float:
    """T₁ / (P T_P) for the same work: 1 is P times as fast."""
    return seconds_on_one / (ranks * seconds)


def weak_scaling_efficiency(seconds_on_one: float, seconds: float) -> float:
    """T₁ / T_P for P times the work on P ranks: 1 is as fast as one rank alone."""
    return seconds_on_one / seconds


def throughput_of_instances(runs: Sequence[tuple[float, float]]) -> float:
    """MLPerf HPC's throughput: trained models per second of many trained side by side.

    Args:
        runs: (start, stop) of each, in seconds; from the first start to the last stop counts.
    """
    return len(runs) / (max(stop for _, stop in runs) - min(start for start, _ in runs))


def cost(seconds: float, price_per_hour: float, machines: int = 1) -> float:
    """What a training costs, DAWNBench's way: hours times price."""
    return seconds / 3600 * price_per_hour * machines
