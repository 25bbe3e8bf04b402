"""Measurements of a running server over HTTP; nothing here imports gemma_serve."""
