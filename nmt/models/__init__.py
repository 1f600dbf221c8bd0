"""The translation models: their configuration, and one interface for training and decoding.

>>> from nmt.models import ModelConfig, build_model
>>> model = build_model(ModelConfig(source_vocabulary=8000, target_vocabulary=8000))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmt.models.config import ModelConfig

if TYPE_CHECKING:
    from nmt.models.build import build_model
    from nmt.models.interface import DecoderState, TranslationModel

__all__ = ["DecoderState", "ModelConfig", "TranslationModel", "build_model"]


def __getattr__(name: str) -> Any:
    # On first use: a configuration is read and checked without waiting for TensorFlow.
    if name == "build_model":
        from nmt.models.build import build_model

        return build_model
    if name in ("DecoderState", "TranslationModel"):
        from nmt.models import interface

        return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
