"""Second moments of patches by the Fourier transform: for static spatial dimensions.

Neighbouring patches overlap. Where every tap of the kernel passes over the whole input, block
(p, q) of the result depends on the offset q - p alone: it is the input's autocorrelation at that
offset, and the discrete Fourier transform turns all autocorrelations into one small product per
frequency (Wiener-Khinchin theorem). A tap that leaves out rows at a border needs those rows'
products subtracted. See :class:`_Products` for how both become one sum, which is exact up to
rounding.
"""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfkfac.patch_axes import Axis


def multiplications(axes: list[Axis], batch: int, channels: int, groups: int) -> int:
    """What :func:`second_moment` costs, in multiplications at a matrix product's full speed.

    The weights are rough, from timings on two AVX2 cores with and without oneDNN: the transform
    is bound by memory, and the products, one small matrix per frequency and group, reach a quarter
    of full speed and cost about 50,000 multiplications each to start.
    """
    taps = [_taps(axis) for axis in axes]
    values = batch * channels * math.prod(axis.stride for axis in axes)
    transform = 0
    terms = 1
    for i, along in enumerate(taps):
        rest = math.prod(other.length for other in taps[i + 1 :])
        span = along.shifts[-1] - along.shifts[0]
        count = (along.length + span) // (1 if i else 2) + len(_left_out(along))
        columns = along.length * (2 if i else 1)  # real values only on the first axis
        transform += values * terms * 2 * count * columns * rest
        terms *= count
    transform += 20 * values * terms
    width = channels // groups * math.prod(axis.stride for axis in axes)
    if width == 1:
        products = values * terms * 2
    else:
        products = groups * terms * (batch * 2 * width**2 * 4 + 50_000)
    blocks = math.prod(len(along.shifts) for along in taps) ** 2 * groups * width**2
    return 2 * transform + products + 2 * blocks * terms


def second_moment(inputs: tf.Tensor, axes: list[Axis], groups: int) -> tf.Tensor:
    """``[groups, K, K]``, see :func:`tfkfac.patches.patch_second_moment`.

    It is ``Σ weights · conj(y) y[mirror]ᵀ`` over all axes' terms, in real arithmetic. Of
    z = conj(y) y[mirror]ᵀ only T = Re z + Im z is needed, one real product of twice the length: up
    to the symmetry of the result, Σ w z = Σ (Re w - Im w) T, because each term's conjugate
    frequency (but for ``one_sided``, which counts it) and each pair's mirror image are terms, too.
    So the right factor is multiplied by 1 - i, the weights by 1 + i, and only real parts are kept.
    """
    taps = [_taps(axis) for axis in axes]
    terms = [_products(along, one_sided=i == 0) for i, along in enumerate(taps)]
    channels = inputs.shape[-1] // groups * math.prod(axis.stride for axis in axes)
    depthwise = channels == 1
    batch = 1 if depthwise else groups

    counts = [len(term.mirror) for term in terms]
    count = math.prod(counts)
    values = _phases(inputs, axes, taps, batch)
    values = _transform(values, [term.transform for term in terms])
    left = tf.reshape(values, [batch, count, 2, -1])
    real, imaginary = tf.split(left, 2, axis=2)
    right = tf.concat([real + imaginary, imaginary - real], axis=2)
    mirror = np.ravel_multi_index(np.ix_(*(term.mirror for term in terms)), counts).reshape(-1)
    if not np.array_equal(mirror, np.arange(count)):
        right = tf.gather(right, mirror, axis=1)
    if depthwise:
        moments = tf.reduce_sum(tf.reshape(left * right, [1, count, -1, groups]), axis=2)
    else:
        left = tf.reshape(left, [groups * count, -1, channels])
        right = tf.reshape(right, [groups * count, -1, channels])
        moments = tf.matmul(left, right, transpose_a=True)
        moments = tf.reshape(moments, [groups, count, channels**2])

    weights = [term.weights for term in terms]
    if math.prod(weight.size for weight in weights) <= 1 << 18:
        joint = weights[0]
        for weight in weights[1:]:
            joint = np.kron(joint, weight)
        weights = [joint]
    weights[-1] = weights[-1] * ((1 + 1j) / 2)
    blocks = _transform(moments, weights, real_output=True)

    # [groups, (shifts, shifts) per axis, C, C] -> [groups, shifts, C, shifts, C]
    rank = len(axes)
    sizes = [len(along.shifts) for along in taps]
    size = math.prod(sizes) * channels
    pairs = [size for size in sizes for _ in range(2)]
    rows, columns = list(range(1, 2 * rank, 2)), list(range(2, 2 * rank + 1, 2))
    if depthwise:
        blocks = tf.reshape(blocks, [*pairs, groups])
        blocks = tf.transpose(
            blocks, [2 * rank, *(row - 1 for row in rows), *(column - 1 for column in columns)]
        )
    else:
        blocks = tf.reshape(blocks, [groups, *pairs, channels, channels])
        blocks = tf.transpose(blocks, [0, *rows, 2 * rank + 1, *columns, 2 * rank + 2])
    moment = tf.reshape(blocks, [groups, size, size])
    if any(axis.stride > 1 for axis in axes):
        order = _kernel_order(axes, taps, inputs.shape[-1] // groups)
        moment = tf.gather(tf.gather(moment, order, axis=1), order, axis=2)
    return moment + tf.linalg.matrix_transpose(moment)


class _Taps(NamedTuple):
    """The kernel's taps along one axis, on the ``stride`` interleaved phases of that axis.

    Phase ``r`` holds ``x[stride·j + r]``; tap ``p`` of output ``i`` reads entry ``i + shift`` of
    its phase. Several taps may share a shift.
    """

    length: int  # entries of a phase
    outputs: int
    shifts: list[int]  # distinct, ascending
    shift_index: list[int]  # per tap, into shifts
    phase: list[int]  # per tap


class _Products(NamedTuple):
    """The second moment along one axis, written as a weighted sum of products.

    With ``W_p`` the entries that shift ``p`` reads,

        Σ_{j in W_p} x_j x_{j+q-p}ᵀ  =  Σ_m weights[p q, m] · conj(y_m) y_{mirror[m]}ᵀ,

    where ``y = transform · x``. The terms m are the frequencies, which are their own mirrors and
    have the inverse transform's weights (the autocorrelation at q - p over all entries), and the
    pairs of entries (a, b), mirrored as (b, a), with the weight -1 where p leaves out a. The sum
    over several axes has the products of the axes' terms.
    """

    transform: np.ndarray  # [M, length], complex
    mirror: list[int]
    weights: np.ndarray  # [shifts², M], complex


def _taps(axis: Axis) -> _Taps:
    offsets = [tap * axis.dilation - axis.before for tap in range(axis.size)]
    shifts = sorted({offset // axis.stride for offset in offsets})
    return _Taps(
        length=-(-axis.length // axis.stride),
        outputs=axis.outputs,
        shifts=shifts,
        shift_index=[shifts.index(offset // axis.stride) for offset in offsets],
        phase=[offset % axis.stride for offset in offsets],
    )


def _products(taps: _Taps, one_sided: bool) -> _Products:
    """Terms for one axis; with ``one_sided``, of conjugate frequencies only one, counted twice."""
    shifts = np.array(taps.shifts)
    lags = shifts[np.newaxis, :] - shifts[:, np.newaxis]  # [p, q]
    # Lags are only needed up to the kernel's extent: longer ones may wrap around.
    period = taps.length + int(np.ptp(shifts))
    if one_sided:
        # An even number of frequencies that are odd multiples of half the spacing: none of them
        # is its own conjugate. Wrapped lags change their sign, but still stay clear.
        period += period % 2
        frequencies = 2 * np.pi * (np.arange(period // 2) + 0.5) / period
        factor = 2 / period
    else:
        frequencies = 2 * np.pi * np.arange(period) / period
        factor = 1 / period
    waves = np.exp(-1j * np.outer(frequencies, np.arange(taps.length)))
    inverse = factor * np.exp(1j * np.outer(lags.reshape(-1), frequencies))

    left_out = _left_out(taps)
    pairs = list(left_out)
    mirror = list(range(len(waves)))
    mirror += [len(waves) + pairs.index((b, a)) for a, b in pairs]
    return _Products(
        transform=np.concatenate([waves, np.eye(taps.length)[[a for a, _ in pairs]]]),
        mirror=mirror,
        weights=np.concatenate([inverse, *([w.reshape(-1, 1) for w in left_out.values()])], axis=1),
    )


def _left_out(taps: _Taps) -> dict[tuple[int, int], np.ndarray]:
    """Weights ``[p, q]`` of the pairs of entries (a, b) at lag q - p where p does not read a."""
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for (p, first), (q, second) in product(enumerate(taps.shifts), repeat=2):
        lag = second - first
        for entry in range(max(0, -lag), min(taps.length, taps.length - lag)):
            if not first <= entry < first + taps.outputs:
                weights = pairs.setdefault((entry, entry + lag), np.zeros([len(taps.shifts)] * 2))
                weights[p, q] = -1
    return pairs


def _phases(inputs: tf.Tensor, axes: list[Axis], taps: list[_Taps], groups: int) -> tf.Tensor:
    """``[N, *spatial, C]`` -> ``[groups, *lengths, N, *strides, C / groups]``."""
    rank = len(axes)
    missing = [
        along.length * axis.stride - axis.length for axis, along in zip(axes, taps, strict=True)
    ]
    if any(missing):
        inputs = tf.pad(inputs, [(0, 0), *((0, count) for count in missing), (0, 0)])
    shape, lengths, strides = [-1], [], []
    for axis, along in zip(axes, taps, strict=True):
        lengths.append(len(shape))
        shape.append(along.length)
        if axis.stride > 1:
            strides.append(len(shape))
            shape.append(axis.stride)
    last = len(shape)
    if groups == 1:
        inputs = tf.reshape(inputs, [*shape, inputs.shape[rank + 1]])
        return tf.transpose(inputs, [*lengths, 0, *strides, last])[tf.newaxis]
    inputs = tf.reshape(inputs, [*shape, groups, inputs.shape[rank + 1] // groups])
    return tf.transpose(inputs, [last, *lengths, 0, *strides, last + 1])


def _transform(
    values: tf.Tensor, matrices: list[np.ndarray], real_output: bool = False
) -> tf.Tensor:
    """Applies one complex matrix along each of the axes 1, 2, ... of real values.

    Args:
        values: ``[batch, L₁, L₂, ..., rest]``, flattened in any way.
        matrices: ``[Mᵢ, Lᵢ]``, complex.
        real_output: Whether to keep the real part alone.

    Returns:
        ``[batch · M₁ ⋯, 2 · rest]``-sized values in the order batch, M₁, M₂, ..., (real,
        imaginary), rest.
    """
    dtype = values.dtype.as_numpy_dtype
    batch = values.shape[0]
    for i, matrix in enumerate(matrices):
        # [M, (real, imaginary) of the output, (real, imaginary) of the input, L]
        parts = np.array([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])
        parts = parts.transpose(2, 0, 1, 3)
        if i == 0:
            parts = parts[:, :, :1]
        if real_output and i == len(matrices) - 1:
            parts = parts[:, :1]
        real = parts.reshape(parts.shape[0] * parts.shape[1], -1).astype(dtype)
        if batch == 1:
            values = tf.matmul(real, tf.reshape(values, [real.shape[1], -1]))
        else:
            values = tf.matmul(real, tf.reshape(values, [batch, real.shape[1], -1]))
        batch *= len(matrix)
    return values


def _kernel_order(axes: list[Axis], taps: list[_Taps], channels: int) -> np.ndarray:
    """Where the kernel's rows are among ``[*shifts, *strides, channels]``."""
    sizes = [len(along.shifts) for along in taps]
    strides = [axis.stride for axis in axes]
    index = np.arange(math.prod(sizes) * math.prod(strides) * channels)
    index = index.reshape(*sizes, *strides, channels)
    shift = np.ix_(*(along.shift_index for along in taps))
    phase = np.ix_(*(along.phase for along in taps))
    return index[(*shift, *phase)].reshape(-1)
