"""Measurements over HTTP; only prompt_layer.py, for a part without a port, imports gemma_serve."""
