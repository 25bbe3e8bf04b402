"""
What a checkpoint, a precision or a setting costs in quality: against a recorded reference.

`corpus` holds the texts, `record` what a model said of them, `figures` the arithmetic between two
records, `compare` the whole comparison, `show` its table, and `gate` the check before a server is
ready. `gemma_serve/measure_quality.py` runs the engine for the commands.
"""
