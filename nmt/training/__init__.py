"""Training: from a configuration to a model directory, update by update, exactly resumable."""
