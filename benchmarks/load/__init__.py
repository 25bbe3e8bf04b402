"""Sends a workload by a load and records what came back when; knows nothing of metrics."""
