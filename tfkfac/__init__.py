"""K-FAC, a second-order optimizer, for Keras.

>>> from tfkfac import KFAC
>>> model.compile(optimizer=KFAC(learning_rate=0.1, damping=0.003), loss=...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfkfac.optimizer import KFAC

__all__ = ["KFAC"]


def __getattr__(name: str) -> Any:
    # On first use: a command that imports something of this package answers --help without
    # waiting for TensorFlow.
    if name == "KFAC":
        from tfkfac.optimizer import KFAC

        return KFAC
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
