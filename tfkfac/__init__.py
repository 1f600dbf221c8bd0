"""K-FAC, a second-order optimizer, for Keras.

>>> from tfkfac import KFAC
>>> model.compile(optimizer=KFAC(learning_rate=0.1, damping=0.003), loss=...)
"""

from tfkfac.optimizer import KFAC

__all__ = ["KFAC"]
