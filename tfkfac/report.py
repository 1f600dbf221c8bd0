"""A readable account of what K-FAC does with each variable."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfkfac.layer_state import (
    FACTOR_UPDATES,
    FAILED_DECOMPOSITIONS,
    NON_FINITE,
    UNUSED,
    LayerState,
)
from tfkfac.plan import DIAGONAL
from tfkfac.preconditioner import Preconditioner


@dataclasses.dataclass(frozen=True)
class Row:
    """One variable. Counters and spectrum are those of its layer.

    Attributes:
        variable: Path.
        shape: Its shape.
        treatment: Layer kind, `"bias of ..."`, or `"plain"`.
        reason: Why it is not preconditioned, else empty.
        uses: Uses in the training step.
        factors: Orders and structures of the row and the column factor.
        memory: Bytes of factors and bases.
        factor_updates, non_finite, unused, failed_decompositions: Counters.
        spectrum: Smallest and largest eigenvalue of A ⊗ G at the last decomposition, or None.
    """

    variable: str
    shape: tuple[int, ...]
    treatment: str
    reason: str = ""
    uses: int = 0
    factors: str = ""
    memory: int = 0
    factor_updates: int = 0
    non_finite: int = 0
    unused: int = 0
    failed_decompositions: int = 0
    spectrum: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """All variables, the hyperparameters in force and the last KL clip.

    Attributes:
        rows: One per trainable variable.
        values: Updates, learning rate, damping, intervals.
        kl_clip: The last ν; 1 means that nothing was clipped.
        non_finite_steps: Updates in which gradient or direction was not finite.
    """

    rows: tuple[Row, ...]
    values: Mapping[str, Any]
    kl_clip: float
    non_finite_steps: int

    @property
    def memory(self) -> int:
        """Bytes of all factors and bases."""
        return sum(row.memory for row in self.rows)

    def __str__(self) -> str:
        table = Table(title="K-FAC", title_justify="left")
        for heading in ("variable", "shape", "treatment", "uses", "factors", "memory", "spectrum"):
            table.add_column(heading, overflow="fold")
        table.add_column("updates", justify="right")
        table.add_column("skipped", overflow="fold")
        for row in self.rows:
            spectrum = "" if row.spectrum is None else "{:.1e} … {:.1e}".format(*row.spectrum)
            skipped = [
                f"{count} {what}"
                for count, what in (
                    (row.non_finite, "not finite"),
                    (row.unused, "unused"),
                    (row.failed_decompositions, "decompositions"),
                )
                if count
            ]
            table.add_row(
                row.variable,
                "x".join(map(str, row.shape)) or "scalar",
                row.treatment + (f": {row.reason}" if row.reason else ""),
                str(row.uses or ""),
                row.factors,
                _bytes(row.memory) if row.memory else "",
                spectrum,
                str(row.factor_updates or ""),
                ", ".join(skipped),
            )
        buffer = io.StringIO()
        Console(file=buffer, width=150).print(table)
        values = ", ".join(f"{name} {value:g}" for name, value in self.values.items())
        plain = sum(row.treatment == "plain" for row in self.rows)
        lines = [
            f"{len(self.rows) - plain} of {len(self.rows)} variables preconditioned, "
            f"{_bytes(self.memory)} of factors and bases",
            f"{values}, last KL clip {self.kl_clip:.3g}",
        ]
        if self.non_finite_steps:
            lines.append(f"WARNING: {self.non_finite_steps} updates were not finite")
        return buffer.getvalue() + "\n".join(lines)


def make(
    preconditioner: Preconditioner,
    names: Mapping[int, str],
    shapes: Mapping[int, tuple[int, ...]],
    plain: Mapping[int, str],
    values: Mapping[str, Any],
) -> Report:
    """The report on variables with the given names and shapes, by index."""
    owners = {
        state.plan.bias: state.plan
        for state in preconditioner.layers.values()
        if state.plan.bias is not None
    }
    rows = []
    for index, name in names.items():
        state = preconditioner.layers.get(index)
        if state is not None:
            rows.append(_layer_row(state, name, shapes[index]))
        elif index in owners:
            rows.append(Row(name, shapes[index], f"bias of {owners[index].name}"))
        else:
            reason = plain.get(index, "not in any training step so far")
            rows.append(Row(name, shapes[index], "plain", reason))
    return Report(
        tuple(rows),
        dict(values),
        float(preconditioner.last_kl_clip.numpy()),
        int(preconditioner.non_finite_steps.numpy()),
    )


def _layer_row(state: LayerState, name: str, shape: tuple[int, ...]) -> Row:
    plan, counters = state.plan, state.counters.numpy()
    factors = str(plan.rows) if plan.kind == "elementwise" else f"{plan.rows} ⊗ {plan.columns}"
    if plan.groups > 1:
        factors = f"{plan.groups} x ({factors})"
    return Row(
        variable=name,
        shape=shape,
        treatment=plan.kind,
        uses=plan.uses,
        factors=factors,
        memory=sum(int(np.prod(v.shape)) * v.dtype.size for v in state.variables.values()),
        factor_updates=int(counters[FACTOR_UPDATES]),
        non_finite=int(counters[NON_FINITE]),
        unused=int(counters[UNUSED]),
        failed_decompositions=int(counters[FAILED_DECOMPOSITIONS]),
        spectrum=spectrum(state),
    )


def spectrum(state: LayerState) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a layer's A ⊗ G."""
    low, high = 1.0, 1.0
    for name, side in state.sides():
        values = state.variables.get(f"{name}_eigenvalues")
        if values is None:
            factor = state.variables[f"{name}_factor"].numpy()
            if side.structure == DIAGONAL:
                numbers = factor
            elif np.isfinite(factor).all():
                numbers = np.linalg.eigvalsh(factor)
            else:
                numbers = np.array([np.nan])
        else:
            numbers = values.numpy()
        low, high = low * float(numbers.min()), high * float(numbers.max())
    return low, high


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
