"""All faults, F1 to F20; each is registered here and nowhere else."""

from __future__ import annotations

from tests.faults import (
    changing_keys,
    cycles,
    endings,
    full_cache,
    idle,
    killed,
    leavers,
    overload,
    readers,
    rolling,
    shortages,
    starts,
    stopped,
    storm,
    twice,
    unread,
)
from tests.faults.figures import Fault

# So many bad readers at once need a batch and a KV cache for all of them.
WIDE = (
    "engine.max_num_seqs=256",
    "kv_cache_memory_gib=1",
    "limits.write_timeout_s=10",
    "server.grpc_port=0",
)
# On one server in the tests, in this order; the last ones take away its log, and then the server.
ON_SITE = (
    Fault("F10", "clients leave", leavers.clients_leave),
    Fault("F11", "readers are slow or stall", readers.slow_readers, WIDE),
    Fault("F11", "readers of gRPC stall", readers.grpc_readers_stall, WIDE),
    Fault("F12", "connections say nothing", idle.connections_say_nothing),
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
    Fault("F1", "the engine core is killed", killed.engine_is_killed),
    Fault("F2", "a worker is killed", killed.worker_is_killed),
    Fault("F3", "the server is killed", killed.server_is_killed),
    Fault("F4", "the engine core is stopped", stopped.engine_is_stopped),
    Fault("F5", "the model raises an error", endings.model_raises),
    Fault("F8", "SIGTERM twice", twice.sigterm_twice),
    Fault("F8", "Ctrl-C twice", twice.ctrl_c_twice),
    Fault("F9", "starts fail", starts.starts_fail),
    Fault("F9", "starts are told to end", starts.starts_are_told_to_end),
    Fault("F9 F14", "the disk is full at the start", shortages.disk_is_full_at_the_start),
    Fault("F13", "ten times more than the queue takes", overload.more_than_the_queue),
    Fault("F14", "memory is limited", shortages.memory_is_limited),
    Fault("F14", "the clock jumps", shortages.clock_jumps),
    Fault("F19", "starts and ends", cycles.starts_and_ends, bound_s=3600.0),
    Fault("F20", "replicas are restarted", rolling.replicas_are_restarted, bound_s=5400.0),
)
