"""Networks: published sizes, alignment of shortcuts, initial values."""

import functools

import keras
import numpy as np
import pytest

from models import resnet
from models.resnet import ZeroPadShortcut, bottleneck_resnet, cifar_resnet, imagenet_resnet


@functools.cache  # building takes a second
def resnet50():
    return resnet.resnet50()


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


# For n blocks a stage, a batch norm having 2 parameters a filter:
#   stem           3*3*3*16 + 2*16                                     = 464
#   stage 1        2n (3*3*16*16 + 2*16)                               = 4672 n
#   stage 2        3*3*16*32 + (2n-1) 3*3*32*32 + 2n * 2*32            = 18560 n - 4608
#   stage 3        3*3*32*64 + (2n-1) 3*3*64*64 + 2n * 2*64            = 73984 n - 18432
#   classifier     64*10 + 10                                          = 650
# in all 97216 n - 21926.
@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (resnet.resnet20, 269_722),  # n = 3; published as 0.27 million
        (resnet.resnet32, 464_154),  # n = 5; 0.46
        (resnet.resnet44, 658_586),  # n = 7; 0.66
        (resnet.resnet56, 853_018),  # n = 9; 0.85
        (resnet.resnet110, 1_727_962),  # n = 18; 1.7
        (resnet.resnet50, 25_557_032),
        (resnet.resnet101, 44_549_160),
        (resnet.resnet152, 60_192_808),
    ],
)
def test_published_number_of_parameters(build, parameters):
    with keras.StatelessScope(initialize_variables=False):  # shapes will do
        model = build()
    assert trainable(model) == parameters


def test_small_variant_for_digits():
    model = resnet.resnet8()
    assert model.input_shape == (None, 8, 8, 1)
    assert model.output_shape == (None, 10)
    # stem 72+16; stages 2*(576+16), (1152+2304+64), (4608+9216+128); classifier 330
    assert trainable(model) == 88 + 1184 + 3520 + 13952 + 330


def test_options_of_shape():
    model = cifar_resnet(8, input_shape=(12, 20, 4), classes=7, width=4)
    assert model.output_shape == (None, 7)
    assert model.get_layer("stage3_block1_relu2").output.shape == (None, 3, 5, 16)
    assert resnet50().output_shape == (None, 1000)
    assert resnet50().get_layer("stage4_block3_relu3").output.shape == (None, 7, 7, 2048)


@pytest.mark.parametrize("depth", [2, 9, 51])
def test_cifar_depth_must_be_possible(depth):
    with pytest.raises(ValueError, match=rf"6 n \+ 2 layers .* not {depth}"):
        cifar_resnet(depth)


def test_bottleneck_network_of_another_depth_and_width():
    model = bottleneck_resnet((1, 2), (32, 48, 3), classes=7, width=4)
    assert model.name == "resnet11"
    assert model.get_layer("stage2_block2_relu3").output.shape == (None, 4, 6, 32)

    def block(into, width, shortcut):  # each batch norm has 2 parameters a filter
        own = into * width + 9 * width**2 + 4 * width**2 + 2 * (width + width + 4 * width)
        return own + (4 * width * (into + 2) if shortcut else 0)

    stem = 49 * 3 * 4 + 2 * 4
    blocks = block(4, 4, True) + block(16, 8, True) + block(32, 8, False)
    assert trainable(model) == stem + blocks + 32 * 7 + 7


def test_imagenet_depth_must_be_published():
    with pytest.raises(ValueError, match="50, 101 or 152 layers, not 34"):
        imagenet_resnet(34)


def test_where_a_bottleneck_has_its_stride():
    def strides(model):
        return [model.get_layer(f"stage2_block1_conv{n}").strides[0] for n in (1, 2, 3)]

    other = imagenet_resnet(50, (64, 64, 3), 5, stride_in_3x3=True)
    assert other.output_shape == (None, 5)
    assert strides(resnet50()) == [2, 1, 1]
    assert strides(other) == [1, 2, 1]


def test_shortcut_subsamples_and_appends_zeros():
    image = np.arange(2 * 5 * 4 * 3, dtype=np.float32).reshape(2, 5, 4, 3)
    result = np.asarray(ZeroPadShortcut(channels=7, stride=2)(image))
    assert result.shape == (2, 3, 2, 7)
    assert ZeroPadShortcut(7, 2).compute_output_shape((2, 5, 4, 3)) == (2, 3, 2, 7)
    np.testing.assert_array_equal(result[..., :3], image[:, ::2, ::2, :])
    np.testing.assert_array_equal(result[..., 3:], 0)


def test_shortcut_cannot_drop_channels():
    with pytest.raises(ValueError, match="narrow: .* cannot turn 3 into 2"):
        ZeroPadShortcut(2, name="narrow")(np.zeros((1, 4, 4, 3), np.float32))


def test_shortcut_is_serialisable():
    layer = ZeroPadShortcut(7, 3)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (copy.channels, copy.stride) == (7, 3)


def test_strided_convolution_is_aligned_with_the_shortcut():
    """A kernel that copies its centre pixel must give what the shortcut gives."""
    model = cifar_resnet(8, input_shape=(8, 8, 1), width=4)
    convolution = model.get_layer("stage2_block1_conv1")
    kernel = np.zeros((3, 3, 4, 8), np.float32)
    kernel[1, 1, :, :4] = np.eye(4)
    convolution.set_weights([kernel])
    outputs = [convolution.output, model.get_layer("stage2_block1_shortcut").output]
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    copied, shortcut = keras.Model(model.input, outputs)(image)
    assert np.any(np.asarray(shortcut))
    np.testing.assert_allclose(copied, shortcut, rtol=1e-6)


@pytest.mark.parametrize("zero_gamma", [False, True])
def test_zero_gamma_starts_blocks_as_the_identity(zero_gamma):
    model = cifar_resnet(8, input_shape=(8, 8, 1), width=4, zero_gamma=zero_gamma)
    names = ["stem_relu", "stage1_block1_relu2"]
    outputs = [model.get_layer(name).output for name in names]
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    before, after = keras.Model(model.input, outputs)(image)
    assert np.array_equal(before, after) == zero_gamma


def test_kernels_start_he_normal():
    kernel = np.asarray(resnet.resnet20().get_layer("stage3_block2_conv1").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 64)), rel=0.02)
    assert abs(kernel.mean()) < 0.001


def test_logits_are_float32_in_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = resnet.resnet8()
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
