"""The HTTP layer: routes, errors, keys, probes."""
