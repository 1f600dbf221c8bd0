"""Layer inputs and output gradients, read off the graph of a weight's gradient.

The gradient of a kernel is the contraction of exactly the two tensors that K-FAC needs: the
layer's input and the gradient of its output. In graph mode that contraction is an operation whose
operands can be looked up; no hook, wrapped layer or registration is needed. Each pattern of
`contraction_patterns` knows one such operation. A match can be proved: `Use.contract` forms the
gradient from the two tensors again.

=================================================  ==========================  =====================
the gradient's producer                            layer                       kind
=================================================  ==========================  =====================
`MatMul`, `Sum` of `BatchMatMulV2`, `Einsum`       Dense on any rank,          dense
                                                   EinsumDense, attention
                                                   projections, unrolled RNN
`Conv2DBackpropFilter`, `Conv3DBackpropFilterV2`   Conv1D/2D/3D, transposed,   convolution
(also inside a `PartitionedCall`)                  dilated, grouped
`DepthwiseConv2dNativeBackpropFilter`              depthwise, separable        depthwise convolution
`IndexedSlices`                                    Embedding                   embedding
a sum over examples of anything else               scale and shift of          elementwise
                                                   normalisation, lone biases
=================================================  ==========================  =====================
"""

from __future__ import annotations

import math

import tensorflow as tf

from tfkfac import gradient_graph as graph
from tfkfac.contraction_patterns import OPAQUE, PATTERNS, Match, match_slices
from tfkfac.elementwise_statistics import match_elementwise
from tfkfac.gradient_terms import Gradient, Leaf, Step, leaves, static_shape
from tfkfac.uses import DenseUse, Use


def match_gradient(gradient: Gradient, shape: tuple[int, ...]) -> Match:
    """Finds the uses of a variable of static `shape` from its symbolic `gradient`."""
    if gradient is None:
        return Match(reason="no gradient: not used by the loss")
    if not graph.is_symbolic(gradient):
        return Match(reason="its gradient is a constant of the training step")
    if isinstance(gradient, tf.IndexedSlices):
        return match_slices(gradient.values, gradient.indices, shape, ())
    matches = [_match_term(term, shape) for term in leaves(gradient)]
    found = [match for match in matches if match is not None]
    reasons = [match.reason for match in found if match.reason]
    if found and not reasons:
        combined = _combine(found)
        if not combined.reason:
            return combined
        reasons = [combined.reason]
    elementwise = match_elementwise(gradient, shape)
    if elementwise is not None:
        return Match((elementwise,))
    return Match(reason=reasons[0] if reasons else "its gradient does not depend on the data")


def _combine(found: list[Match]) -> Match:
    uses = tuple(use for match in found for use in match.uses)
    if len({match.steps for match in found}) > 1:
        return Match(reason="its uses arrange its elements differently")
    if len({use.contraction_shape for use in uses}) > 1:
        return Match(reason="its uses contract over different shapes")
    kinds = {use.kind for use in uses}
    if len(kinds) > 1 and kinds != {"dense", "embedding"}:
        return Match(reason=f"it is used as {' and as '.join(sorted(kinds))}")
    return Match(uses, found[0].steps)


def _match_term(leaf: Leaf, shape: tuple[int, ...]) -> Match | None:
    """The use behind one summand; None for a summand that does not depend on data."""
    tensor = leaf.tensor
    if not graph.is_symbolic(tensor):
        return None
    pattern = PATTERNS.get(tensor.op.type)
    result = pattern(tensor, leaf) if pattern is not None else None
    if isinstance(result, Use):
        result = Match((result,), leaf.steps)
    if isinstance(result, Match):
        return _place(result, static_shape(tensor.shape), shape)
    if not graph.depends_on_data(tensor):
        return None
    if result is not None:
        return Match(reason=result)
    return Match(reason=OPAQUE.get(tensor.op.type, f"no pattern for {tensor.op.type}"))


def _place(match: Match, result_shape: tuple[int, ...] | None, shape: tuple[int, ...]) -> Match:
    """Ties the uses behind a summand of `result_shape` to the variable's shape by static steps."""
    uses, steps = match.uses, match.steps
    contraction_shape = uses[0].contraction_shape
    # Only the contraction's own shape may be unknown to the graph.
    if any(step[0] == "reshape" and None in step[1:] for step in steps[1:]):
        return Match(reason="its gradient is reshaped dynamically")
    if steps and steps[0][0] == "reshape":
        if steps[0][2] is None:
            return Match(reason="its gradient is reshaped dynamically")
        steps = (("reshape", contraction_shape, steps[0][2]), *steps[1:])
    elif result_shape is not None:
        steps = (("reshape", contraction_shape, result_shape), *steps)
    if math.prod(contraction_shape) != math.prod(shape):
        return Match(reason="only part of it is used")
    steps = _without_no_ops(steps)
    dense = [use for use in uses if isinstance(use, DenseUse)]
    if steps and steps[0] == ("transpose", (1, 0)) and len(dense) == len(uses):
        # A product with the transposed weight: exchange the operands instead.
        uses = tuple(DenseUse(use.columns, use.rows, use.multipliers) for use in dense)
        steps = steps[1:]
    return Match(uses, steps)


def _without_no_ops(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(s for s in steps if not (s[0] == "reshape" and s[1] == s[2]))
