"""Structured outputs, compiled once under bounds before they reach the server's event loop."""
