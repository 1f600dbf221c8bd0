"""Machine descriptions that come with `tfkfac-plan`, by name."""
