"""Translating text with trained models: lines in, lines out."""
