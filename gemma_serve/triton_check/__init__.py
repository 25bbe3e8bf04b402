"""`gemma-serve triton-check`: recorded requests, replayed before clients are moved."""
