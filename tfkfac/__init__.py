"""K-FAC, a second-order optimizer, for Keras."""
