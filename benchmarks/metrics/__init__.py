"""From request records to figures: pure functions, with each formula in its docstring."""
