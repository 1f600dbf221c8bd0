"""Second moments of patches against patches cut out one by one."""

from contextlib import contextmanager
from itertools import product
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfkfac import patches as patches_module
from tfkfac.patches import patch_second_moment, patch_sums


def cut_patches(inputs, kernel_size, strides, dilations, padding, groups):
    """``[groups, N, positions, K]``, by the definition of a convolution, one position at a time."""
    pads, outputs = [], []
    for i, (size, stride, dilation) in enumerate(zip(kernel_size, strides, dilations, strict=True)):
        length, extent = inputs.shape[i + 1], (size - 1) * dilation + 1
        if padding == "SAME":
            outputs.append(-(-length // stride))
            total = max((outputs[-1] - 1) * stride + extent - length, 0)
            pads.append((total // 2, total - total // 2))
        else:
            pads.append((0, 0) if padding == "VALID" else padding[i])
            outputs.append(max((length + sum(pads[-1]) - extent) // stride + 1, 0))
    padded = np.pad(inputs, [(0, 0), *pads, (0, 0)])
    batch, channels = len(inputs), inputs.shape[-1]
    cut = []
    for position in np.ndindex(*outputs):
        window = [slice(None)]
        for i, at in enumerate(position):
            start = at * strides[i]
            window.append(slice(start, start + kernel_size[i] * dilations[i], dilations[i]))
        patch = padded[tuple(window)].reshape(batch, -1, groups, channels // groups)
        cut.append(patch.transpose(2, 0, 1, 3).reshape(groups, batch, -1))
    size = int(np.prod(kernel_size)) * channels // groups
    patches = np.stack(cut, axis=2) if cut else np.zeros([groups, batch, 0, size])
    return patches


def random_inputs(shape, dtype=np.float64, seed=0):
    # Not centred: a wrong border then changes the sums, too.
    return np.random.default_rng(seed).normal(0.5, 1.0, shape).astype(dtype)


@contextmanager
def method(name):
    """Has the second moment computed by ``"extraction"`` or ``"spectrum"``, whichever is faster."""
    with mock.patch.object(patches_module, "_prefers_spectrum", lambda *_: name == "spectrum"):
        yield


def check(
    inputs, kernel_size, strides, dilations, padding, groups=1, *, tolerance=1e-12, call=None
):
    arguments = (kernel_size, strides, dilations, padding, groups)
    patches = cut_patches(inputs.astype(np.float64), *arguments)
    moment = np.einsum("gnsi,gnsj->gij", patches, patches)
    total = patches.sum(axis=2).transpose(1, 0, 2)
    call = call or (
        lambda x: (
            patch_second_moment(x, *arguments),
            patch_sums(x, *arguments),
        )
    )
    actual, actual_sums = call(tf.constant(inputs))
    assert actual.dtype == actual_sums.dtype == inputs.dtype
    assert actual.shape == moment.shape
    assert actual_sums.shape == total.shape
    scale = max(np.abs(moment).max(), 1)
    np.testing.assert_allclose(actual / scale, moment / scale, rtol=0, atol=tolerance)
    scale = max(np.abs(patches).sum(axis=2).max(initial=0), 1)
    np.testing.assert_allclose(actual_sums / scale, total / scale, rtol=0, atol=tolerance)


# (spatial shape, kernel, strides, dilations)
GEOMETRIES = [
    ((9,), (1,), (1,), (1,)),
    ((9,), (3,), (1,), (1,)),
    ((11,), (5,), (2,), (1,)),
    ((11,), (2,), (3,), (1,)),
    ((13,), (3,), (1,), (2,)),
    ((7, 8), (1, 1), (1, 1), (1, 1)),
    ((7, 8), (1, 1), (2, 2), (1, 1)),
    ((7, 9), (2, 2), (1, 1), (1, 1)),
    ((9, 7), (3, 3), (1, 1), (1, 1)),
    ((16, 16), (3, 3), (1, 1), (1, 1)),
    ((8, 8), (3, 3), (2, 2), (1, 1)),
    ((9, 11), (3, 3), (2, 2), (1, 1)),
    ((10, 9), (3, 3), (3, 1), (1, 1)),
    ((9, 10), (3, 3), (1, 2), (1, 1)),
    ((10, 11), (1, 3), (1, 1), (1, 1)),
    ((10, 11), (3, 1), (1, 1), (1, 1)),
    ((11, 13), (3, 3), (1, 1), (2, 2)),
    ((12, 9), (3, 2), (1, 1), (1, 2)),
    ((13, 12), (3, 3), (2, 1), (1, 2)),
    ((11, 10), (5, 5), (1, 1), (1, 1)),
    ((14, 13), (5, 4), (2, 3), (1, 1)),
    ((15, 15), (7, 7), (2, 2), (1, 1)),
    ((2, 3), (3, 5), (1, 1), (1, 1)),
    ((1, 1), (3, 3), (1, 1), (1, 1)),
    ((3, 2), (7, 7), (2, 2), (1, 1)),
    ((4, 5, 6), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((5, 4, 7), (3, 2, 3), (2, 1, 2), (1, 1, 1)),
    ((5, 6, 6), (1, 3, 3), (1, 1, 1), (1, 2, 1)),
    ((4, 5, 5), (1, 1, 1), (2, 1, 2), (1, 1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_equals_the_sum_over_patches(geometry):
    spatial, kernel_size, strides, dilations = geometry
    # Asymmetric, and beyond the kernel's reach in the last dimension.
    explicit = [(0, 2), (3, 1), (2, 0)][: len(spatial) - 1] + [(kernel_size[-1], 1)]
    for padding, batch, channels, groups in [
        ("SAME", 2, 3, 1),
        ("SAME", 1, 3, 3),
        ("VALID", 1, 4, 2),
        (explicit, 2, 2, 1),
        (explicit, 2, 3, 3),
    ]:
        inputs = random_inputs((batch, *spatial, channels))
        for name in ("extraction", "spectrum"):
            with method(name):
                check(inputs, kernel_size, strides, dilations, padding, groups)


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    small = st.integers(1, 3)
    spatial = tuple(draw(st.integers(1, 9 if rank < 3 else 5)) for _ in range(rank))
    kernel_size = tuple(draw(st.integers(1, 4 if rank < 3 else 3)) for _ in range(rank))
    strides = tuple(draw(small) for _ in range(rank))
    dilations = tuple(draw(small) if stride == 1 else 1 for stride in strides)
    pair = st.tuples(st.integers(0, 4), st.integers(0, 4))
    explicit = st.tuples(*[pair] * rank)
    padding = draw(st.sampled_from(["SAME", "VALID"]) | explicit)
    groups = draw(small)
    channels = groups * draw(small)
    batch = draw(small)
    return (batch, *spatial, channels), kernel_size, strides, dilations, padding, groups


@settings(max_examples=40, deadline=None, derandomize=True)
@given(convolutions())
def test_equals_the_sum_over_patches_for_any_convolution(convolution):
    shape, *arguments = convolution
    for name in ("extraction", "spectrum"):
        with method(name):
            check(random_inputs(shape), *arguments)


LAYERS = [  # (shape, kernel, strides, dilations, padding, groups)
    ((4, 12, 12, 8), (3, 3), (1, 1), (1, 1), "SAME", 1),
    ((4, 12, 12, 8), (3, 3), (2, 2), (1, 1), "SAME", 1),
    ((4, 12, 12, 8), (3, 3), (1, 1), (2, 2), "VALID", 2),
    ((4, 12, 12, 8), (3, 3), (1, 1), (1, 1), "SAME", 8),
    ((4, 12, 12, 8), (1, 1), (2, 2), (1, 1), "VALID", 1),
    ((2, 15, 15, 3), (7, 7), (2, 2), (1, 1), [(3, 3), (3, 3)], 1),
    ((4, 20, 6), (5,), (1,), (1,), "SAME", 1),
    ((2, 6, 5, 6, 4), (3, 3, 3), (1, 1, 1), (1, 1, 1), "SAME", 1),
]


MODES = ["dynamic-extraction", "dynamic batch-spectrum", "xla-spectrum", "cond-spectrum"]


@pytest.mark.parametrize(
    ("layer", "mode"),
    [*product(LAYERS, MODES), *product(LAYERS[1:3], ["xla-extraction"])],
    ids=str,
)
def test_compiled_modes_agree(layer, mode):
    shape, *arguments = layer
    mode, name = mode.split("-")

    def compute(x):
        return (
            patch_second_moment(x, *arguments),
            patch_sums(x, *arguments),
        )

    def in_cond(x):
        return tf.cond(tf.size(x) > 0, lambda: compute(x), lambda: tuple(t + 1 for t in compute(x)))

    signature = {
        "dynamic": [None] * (len(shape) - 1) + [shape[-1]],
        "dynamic batch": [None, *shape[1:]],
    }.get(mode, shape)
    call = tf.function(
        in_cond if mode == "cond" else compute,
        input_signature=[tf.TensorSpec(signature, tf.float32)],
        jit_compile=mode == "xla",
    )
    with method(name):
        check(random_inputs(shape, np.float32), *arguments, tolerance=2e-6, call=call)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((8, 8, 8, 64), 1), ((8, 16, 16, 32), 1), ((8, 16, 16, 32), 2), ((4, 32, 32, 3), 1)],
)
def test_float32_is_accurate_to_rounding(shape, strides):
    for name in ("extraction", "spectrum"):
        with method(name):
            check(
                random_inputs(shape, np.float32),
                (3, 3),
                [strides] * 2,
                (1, 1),
                "SAME",
                tolerance=2e-6,
            )


@pytest.mark.parametrize(
    ("shape", "kernel_size", "groups"),
    [
        ((128, 32, 32, 16), (3, 3), 1),
        ((128, 8, 8, 64), (3, 3), 1),
        ((32, 28, 28, 48), (5, 5), 48),
        ((4, 16, 16, 16, 8), (3, 3, 3), 1),
    ],
)
def test_patches_are_formed_on_gpus_alone(shape, kernel_size, groups):
    ones = [1] * len(kernel_size)

    def largest_tensor(devices):
        @tf.function(input_signature=[tf.TensorSpec(shape)])
        def moment(x):
            return patch_second_moment(x, kernel_size, ones, ones, "SAME", groups)

        with mock.patch.object(tf.config, "list_physical_devices", lambda _: devices):
            operations = moment.get_concrete_function().graph.get_operations()
        return max(
            output.shape.num_elements() for operation in operations for output in operation.outputs
        )

    patches = np.prod(shape) * np.prod(kernel_size)
    assert largest_tensor([]) < patches / 3
    assert largest_tensor(["GPU:0"]) == patches


def test_patches_are_the_ones_that_the_convolution_reads():
    """The moment of the outputs of a convolution is the kernel's quadratic form in ours."""
    inputs = tf.constant(random_inputs((2, 9, 8, 3)))
    kernel = tf.constant(random_inputs((3, 2, 3, 5), seed=1))
    for strides, dilations, padding in product([1, 2], [1, 2], ["SAME", "VALID"]):
        if strides > 1 and dilations > 1:
            continue
        outputs = tf.nn.conv2d(inputs, kernel, strides, padding, dilations=dilations)
        outputs = tf.reshape(outputs, [-1, 5])
        geometry = ((3, 2), (strides, strides), (dilations, dilations), padding)
        flat = tf.reshape(kernel, [-1, 5])
        moment = patch_second_moment(inputs, *geometry)[0]
        np.testing.assert_allclose(
            tf.matmul(flat, moment @ flat, transpose_a=True),
            tf.matmul(outputs, outputs, transpose_a=True),
            rtol=1e-11,
        )
        np.testing.assert_allclose(
            tf.matmul(tf.squeeze(patch_sums(inputs, *geometry), 1), flat),
            tf.reduce_sum(tf.reshape(outputs, [2, -1, 5]), axis=1),
            rtol=1e-11,
        )


def test_arguments_that_do_not_fit_are_refused():
    inputs = tf.zeros([1, 5, 5, 4])
    with pytest.raises(ValueError, match="3 groups"):
        patch_second_moment(inputs, (3, 3), (1, 1), (1, 1), "SAME", groups=3)
    with pytest.raises(ValueError, match="strides has 1 entries"):
        patch_second_moment(inputs, (3, 3), (1,), (1, 1), "SAME")
    with pytest.raises(ValueError, match="padding"):
        patch_second_moment(inputs, (3, 3), (1, 1), (1, 1), "FULL")
