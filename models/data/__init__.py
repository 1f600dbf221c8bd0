"""Data sets: each module has a `load` that returns a `models.data.dataset.Dataset`."""
