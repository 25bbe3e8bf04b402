"""Whether a profile fits a machine, and how fast it could be: arithmetic alone, nothing loaded."""
