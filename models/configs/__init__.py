"""Configurations that come with `models-train`, by name."""
