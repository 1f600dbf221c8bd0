"""Reference networks, their data and the training command."""
