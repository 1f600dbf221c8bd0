"""KFAC as an optimizer of the Keras that is installed: the one place where versions part."""

from __future__ import annotations

from tfkfac.keras_version import KERAS_3

if KERAS_3:
    from tfkfac.keras3_optimizer import KFAC
else:
    from tfkfac.keras2_optimizer import KFAC

__all__ = ["KFAC"]
