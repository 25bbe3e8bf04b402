"""Serve Google's Gemma models on vLLM."""

__version__ = "0.1.0"
