"""All faults that a function of their own injects; each is registered here and nowhere else."""

from __future__ import annotations

from tests.faults import (
    changing_keys,
    cycles,
    endings,
    full_cache,
    leavers,
    readers,
    shortages,
    storm,
    unread,
)
from tests.faults.figures import Fault

# On one server, in this order; the last ones take away its log, and then the server.
ON_SITE = (
    Fault("F10", "clients leave", leavers.clients_leave),
    Fault("F11", "readers are slow or stall", readers.slow_readers),
    Fault("F11", "readers of gRPC stall", readers.grpc_readers_stall),
    Fault("F14", "descriptors run out", shortages.descriptors_run_out),
    Fault("F14", "the disk is full", shortages.disk_is_full),
    Fault("F15", "the KV cache is full", full_cache.cache_is_full),
    Fault("F16", "bad inputs beside good ones", storm.bad_inputs_beside_good),
    Fault("F17", "nobody reads the log", unread.nobody_reads_the_log),
    Fault("F17", "metrics are scraped", unread.metrics_are_scraped),
    Fault("F18", "keys change", changing_keys.keys_change),
    Fault("F17", "the log's reader is gone", unread.the_logs_reader_is_gone),
    Fault("F6 F7", "told to end under load", endings.told_to_end),
)
# Each on servers of its own.
ALONE = (
    Fault("F5", "the model raises an error", endings.model_raises),
    Fault("F14", "the disk is full at the start", shortages.disk_is_full_at_the_start),
    Fault("F14", "memory is limited", shortages.memory_is_limited),
    Fault("F14", "the clock jumps", shortages.clock_jumps),
    Fault("F19", "starts and ends", cycles.starts_and_ends),
)
