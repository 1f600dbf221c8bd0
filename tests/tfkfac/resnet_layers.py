"""Orders of the factors of ResNet-50, written down from table 1 of He et al. (CVPR 2016)."""

from __future__ import annotations


def resnet50_orders() -> list[tuple[int, int]]:
    """Orders of A and G of the 54 layers, a block's shortcut after its three convolutions."""
    layers = [(7 * 7 * 3, 64)]
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            layers += [(channels, width), (9 * width, width), (width, 4 * width)]
            if block == 0:
                layers.append((channels, 4 * width))
            channels = 4 * width
    return [*layers, (2048 + 1, 1000)]
