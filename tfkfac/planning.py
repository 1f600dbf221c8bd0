"""From matched gradients to layer plans: biases find their weights, factors get their structure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfkfac.contraction_patterns import Match
from tfkfac.elementwise_statistics import reduced_keys
from tfkfac.gradient_terms import Gradient
from tfkfac.plan import DIAGONAL, IDENTITY, LayerPlan, Side, bounded_side
from tfkfac.statistics import match_gradient
from tfkfac.uses import ConvolutionUse, DepthwiseUse, Use


@dataclasses.dataclass(frozen=True)
class Weight:
    """A trainable variable as far as planning needs it: path, static shape, place in the list."""

    path: str
    shape: tuple[int, ...]
    index: int

    @property
    def owner(self) -> str:
        """Path of the layer that owns the variable."""
        return self.path.rpartition("/")[0]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Options that decide the structure of factors.

    Attributes:
        max_factor_size: Largest order of a dense factor, None for no bound.
        oversized: Structure above it, `"diagonal"` or `"block-diagonal"`.
        elementwise: `"diagonal"` preconditions scale-and-shift parameters by the diagonal of the
            Fisher; `"plain"` leaves them to the inner optimizer.
    """

    max_factor_size: int | None
    oversized: str
    elementwise: str


@dataclasses.dataclass(frozen=True)
class Discovery:
    """What one trace of the training step holds for K-FAC.

    Attributes:
        layers: Plans with the uses behind them, in the order of the weights.
        plain: Reasons why the remaining variables get the plain update, by variable index.
    """

    layers: list[tuple[LayerPlan, tuple[Use, ...]]]
    plain: dict[int, str]


def discover(gradients: Sequence[Gradient], weights: Sequence[Weight], layout: Layout) -> Discovery:
    """Matches every gradient and pairs biases with weights.

    A bias belongs to the weight whose output gradient its own gradient sums up. Where a shift of
    another layer sums up the same tensor (a normalisation that feeds the same addition), the
    layer's own bias comes first.
    """
    matches = [
        match_gradient(gradient, weight.shape)
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
    biases = _pair_biases(gradients, weights, matches)
    taken = {bias.index for bias in biases.values()}
    layers, plain = [], {}
    for weight, match in zip(weights, matches, strict=True):
        if weight.index in taken:
            continue
        if match.reason:
            plain[weight.index] = match.reason
        elif match.uses[0].kind == "elementwise" and layout.elementwise == "plain":
            plain[weight.index] = "elementwise parameter (elementwise='plain')"
        else:
            plan = _plan(weight, match, biases.get(weight.index), layout)
            layers.append((plan, match.uses))
    return Discovery(layers, plain)


def _pair_biases(
    gradients: Sequence[Gradient], weights: Sequence[Weight], matches: Sequence[Match]
) -> dict[int, Weight]:
    """Bias by index of its weight."""
    by_output: dict[frozenset, list[Weight]] = {}
    for weight, match in zip(weights, matches, strict=True):
        uses = match.uses
        has_rows_of_input = not any(use.transposed for use in uses)
        if uses and uses[0].kind not in ("elementwise", "embedding") and has_rows_of_input:
            keys = frozenset(use.output_gradient_key for use in uses)
            by_output.setdefault(keys, []).append(weight)
    outputs = {weight.index: match for weight, match in zip(weights, matches, strict=True)}
    pairs: dict[int, Weight] = {}
    candidates = [
        (weight, keys)
        for gradient, weight, match in zip(gradients, weights, matches, strict=True)
        if match.uses and match.uses[0].kind == "elementwise"
        if None not in (keys := reduced_keys(gradient)) and keys in by_output
    ]
    # A layer's own bias first, then a bias that stands alone (custom loops without layers).
    for same_owner in (True, False):
        for bias, keys in candidates:
            if any(pair.index == bias.index for pair in pairs.values()):
                continue
            for weight in by_output[keys]:
                fits = _output_size(outputs[weight.index]) == math.prod(bias.shape)
                near = bias.owner == weight.owner if same_owner else bias.index == weight.index + 1
                if fits and near and weight.index not in pairs:
                    pairs[weight.index] = bias
                    break
    return pairs


def _output_size(match: Match) -> int:
    use = match.uses[0]
    if use.kind == "depthwise convolution":
        return use.contraction_shape[-1] * use.contraction_shape[-2]
    return use.contraction_shape[-1]


def _plan(weight: Weight, match: Match, bias: Weight | None, layout: Layout) -> LayerPlan:
    uses = match.uses
    kinds = {use.kind for use in uses}
    kind = "embedding" if "embedding" in kinds else uses[0].kind
    shape = uses[0].contraction_shape
    groups = 1
    if kind == "elementwise":
        rows, columns = Side(math.prod(shape), DIAGONAL), Side(1, IDENTITY)
    elif kind == "embedding":
        rows = Side(shape[0], DIAGONAL)
        columns = bounded_side(shape[1], layout.max_factor_size, layout.oversized)
    else:
        row_size, column_size = math.prod(shape[:-1]), shape[-1]
        if isinstance(uses[0], ConvolutionUse):
            groups = uses[0].geometry.groups
            if isinstance(uses[0], DepthwiseUse):
                row_size //= groups
            else:
                column_size //= groups
        rows = bounded_side(row_size + (bias is not None), layout.max_factor_size, layout.oversized)
        columns = bounded_side(column_size, layout.max_factor_size, layout.oversized)
    orientations = {use.transposed for use in uses}
    return LayerPlan(
        name=weight.path,
        kind=kind,
        weight=weight.index,
        bias=None if bias is None else bias.index,
        uses=len(uses),
        groups=groups,
        rows=rows,
        columns=columns,
        steps=match.steps,
        contraction_shape=tuple(shape),
        transposed=orientations.pop() if len(orientations) == 1 else None,
    )
