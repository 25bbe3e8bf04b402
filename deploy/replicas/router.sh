#!/bin/sh
# vllm-router in front of several replicas of gemma-serve: pip install vllm-router==0.1.17
#   router.sh http://HOST:PORT... [OPTION of vllm-router...]
set -eu

# To the replica with fewest open requests; --policy cache_aware goes by the prompt's beginning.
# A replica that drains, starts, is full or hangs says so in /readyz, which is asked each second.
# Until then chats and completions are tried again, for longer than that takes. No circuit breaker: it
# keeps a replica out for a minute after it is back. `warning` is no level that it knows, and means
# info: a line a request.
exec vllm-router \
    --policy power_of_two \
    --health-check-endpoint /readyz \
    --health-check-interval-secs 1 \
    --health-failure-threshold 1 \
    --health-success-threshold 1 \
    --worker-startup-check-interval 1 \
    --retry-max-retries 10 \
    --disable-circuit-breaker \
    --log-level error \
    --worker-urls "$@"
