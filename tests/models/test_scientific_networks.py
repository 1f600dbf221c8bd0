"""CosmoFlow, HEP-CNN and DCGAN: published sizes, losses and the adversarial step."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import cosmoflow, dcgan, deepcam, hep_cnn


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def shapes_only(build):
    with keras.StatelessScope(initialize_variables=False):
        return build()


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (cosmoflow.cosmoflow_reference, 8_907_556),
        (hep_cnn.hep_cnn_64, 4_494_594),
        (hep_cnn.hep_cnn_224, 594_178),
        # ResNet-50 without its 1000 classes, 23,508,032, and 2 * 2048 + 2
        (hep_cnn.hep_resnet50, 23_512_130),
    ],
)
def test_published_number_of_parameters(build, parameters):
    assert trainable(shapes_only(build)) == parameters


def test_cosmoflow_outputs_reach_beyond_the_targets():
    model = cosmoflow.cosmoflow_tiny()
    model.get_layer("parameters").bias.assign([50.0, -50.0, 0.0, np.arctanh(0.5)])
    output = model(np.zeros((1, 16, 16, 16, 4), np.float32))
    np.testing.assert_allclose(output[0], [1.2, -1.2, 0, 0.6], rtol=1e-5)
    with pytest.raises(ValueError, match="5 poolings .* nothing of"):
        cosmoflow.cosmoflow((16, 32, 32, 4))


def test_small_cosmoflow_takes_means():
    model = cosmoflow.cosmoflow_small()
    # 4, 8, 16, 32 channels through 27-cell kernels; 32 means to 128, 64 and 4 units
    kernels = 27 * (4 * 8 + 8 * 16 + 16 * 32) + 8 + 16 + 32
    assert trainable(model) == kernels + (33 * 128 + 129 * 64 + 65 * 4)
    assert model.get_layer("features").output.shape == (None, 32)
    assert isinstance(model.get_layer("block1_pool"), keras.layers.AveragePooling3D)


def test_hep_cnn_heads():
    flat = hep_cnn.hep_cnn((24, 24, 1), classes=3, filters=4, dense=8)
    # convolutions 40, 148, 148; 3*3*4 -> 8 -> 3
    assert trainable(flat) == 40 + 148 + 148 + (36 * 8 + 8) + (8 * 3 + 3)
    pooled = hep_cnn.hep_cnn((32, 32, 3), filters=4, dense=None)
    assert trainable(pooled) == 112 + 3 * 148 + 10
    assert pooled.output_shape == (None, 2)


# With f filters nearest to the image and c channels, 64 pixels, 100 latent numbers:
#   generator       projection 100 * 16 * 8f, convolutions 25 (8f 4f + 4f 2f + 2f f + f c) + c,
#                   scales and shifts 2 (8f + 4f + 2f + f)
#   discriminator   convolutions 25 (c f + f 2f + 2f 4f + 4f 8f) + f, scales and shifts
#                   2 (2f + 4f + 8f), classifier 16 * 8f + 1
def test_dcgan_has_the_papers_layers():
    f, c = 128, 3
    maker, judge = shapes_only(dcgan.generator), shapes_only(dcgan.discriminator)
    projection = maker.get_layer("projection")
    assert projection.kernel.shape == (100, 4 * 4 * 1024)
    assert trainable(maker) == 1600 * 8 * f + 25 * (42 * f * f + f * c) + c + 30 * f
    assert trainable(judge) == 25 * (c * f + 42 * f * f) + f + 28 * f + 128 * f + 1
    shapes = [maker.get_layer(f"deconv{n}").output.shape[1:] for n in (1, 2, 3, 4)]
    assert shapes == [(8, 8, 512), (16, 16, 256), (32, 32, 128), (64, 64, 3)]
    with pytest.raises(ValueError, match="8, 16, 32, ... pixels a side, not 24"):
        dcgan.generator(24)


def test_dcgan_losses():
    # Undecided: log 2 for either. Sure and right: log(1 + 1/3) for logits ±log 3; wrong: log 4.
    log3 = float(np.log(3))
    undecided = tf.zeros((4, 1))
    assert float(dcgan.discriminator_loss(undecided, undecided)) == pytest.approx(2 * np.log(2))
    real, fake = tf.constant([[log3], [-log3]]), tf.constant([[-log3]])
    expected = (np.log(4 / 3) + np.log(4)) / 2 + np.log(4 / 3)
    assert float(dcgan.discriminator_loss(real, fake)) == pytest.approx(expected)
    assert float(dcgan.generator_loss(fake)) == pytest.approx(np.log(4))


@functools.cache
def small_dcgan():
    keras.utils.set_random_seed(0)
    return dcgan.DCGAN(size=8, channels=1, filters=4, latent=5, seed=3)


def test_dcgan_step_moves_each_network_against_its_own_loss():
    """With one network's learning rate at 0 the other's loss falls and the one stays."""
    images = np.sign(np.random.default_rng(0).standard_normal((16, 8, 8, 1))).astype(np.float32)
    for rates in ((0.0, 1e-3), (1e-3, 0.0)):
        model = small_dcgan()
        model.compile(
            *(keras.optimizers.Adam(rate, beta_1=0.5) for rate in rates), run_eagerly=False
        )
        networks = model.generator, model.discriminator
        before = [[v.numpy() for v in network.trainable_variables] for network in networks]
        history = model.fit(images, batch_size=16, epochs=12, verbose=0).history
        for network, values, rate in zip(networks, before, rates, strict=True):
            moved = [
                not np.array_equal(v.numpy(), old)
                for v, old in zip(network.trainable_variables, values, strict=True)
            ]
            assert any(moved) == (rate > 0)
        name = "generator_loss" if rates[0] else "discriminator_loss"
        assert history[name][-1] < history[name][0]


def test_dcgan_latent_vectors_are_uniform_and_seeded():
    values = [dcgan.DCGAN(8, 1, 4, 50, seed=1).sample_latent(40).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*values)
    assert -1 <= values[0].min() < -0.99 and 0.99 < values[0].max() < 1
    assert values[0].var() == pytest.approx(1 / 3, rel=0.1)


# ------------------------------------------------------------------------------------ DeepCAM


def separable(inputs, outputs):
    return 9 * inputs + inputs * outputs


def deepcam_parameters():
    """Of the reference network, block by block; a batch normalisation has two a filter."""
    count = 9 * 16 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    for inputs, outputs in ((64, 128), (128, 256), (256, 728)):
        count += inputs * outputs + 2 * outputs  # shortcut
        count += separable(inputs, outputs) + 2 * separable(outputs, outputs) + 4 * outputs
    count += 16 * 3 * (separable(728, 728) + 2 * 728)
    count += 728 * 1024 + 2 * 1024 + separable(728, 728) + 2 * 728
    count += separable(728, 1024) + 2 * 1024 + separable(1024, 1024)
    for inputs, outputs in ((1024, 1536), (1536, 1536), (1536, 2048)):
        count += separable(inputs, outputs) + 2 * outputs
    count += (1 + 3 * 9) * 2048 * 256 + 4 * 512 + 2048 * 256 + 256  # the scales
    count += 5 * 256 * 256 + 512
    count += 2 * (9 * 256 * 256 + 512) + 128 * 48 + 96
    count += 9 * 304 * 256 + 512 + 9 * 256 * 256 + 512 + 256 * 256 + 256
    return count + 9 * 256 * 256 + 512 + 9 * 256 * 3


def test_deepcam_has_the_published_layers():
    model = shapes_only(deepcam.deepcam_reference)
    assert trainable(model) == deepcam_parameters()
    assert model.output_shape == (None, 768, 1152, 3)
    assert model.get_layer("exit4_relu").output.shape == (None, 48, 72, 2048)
    assert model.get_layer("levels").output.shape == (None, 192, 288, 304)
    with pytest.raises(ValueError, match="cannot be halved four times"):
        deepcam.deepcam((40, 64, 16))


def test_deepcam_loss():
    np.testing.assert_allclose(deepcam.class_weights(), [1.0017, 2.6141, 1.7165], rtol=1e-3)
    logits = np.zeros((1, 1, 2, 3), np.float32)
    logits[0, 0, 1, 1] = np.log(2)  # p = 1/2 there
    weights = deepcam.class_weights()
    expected = (weights[0] * np.log(3) + weights[1] * np.log(2)) / 2
    got = deepcam.segmentation_loss(np.array([[[0, 1]]], np.uint8), tf.constant(logits))
    assert float(got) == pytest.approx(expected)
