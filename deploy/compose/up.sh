#!/bin/sh
# Starts server, nginx, Prometheus and Grafana; makes an API key where there is none.
#   up.sh [OPTION OF docker compose...]
set -eu
cd "$(dirname "$0")"

keys=${GEMMA_SERVE_API_KEYS_FILE:-secrets/api-keys}
if [ ! -e "$keys" ]; then
    mkdir -p "$(dirname "$keys")"
    chmod 700 "$(dirname "$keys")"
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$keys"
    # The directory keeps others out here; in the container, another user reads the file.
    chmod 644 "$keys"
    echo "Made an API key: $PWD/$keys"
fi

docker compose --file compose.yaml "$@" up --build --detach
cat <<END
Starting; the first time takes minutes (docker compose logs --follow gemma-serve).
  API         http://127.0.0.1:${HTTP_PORT:-8000}/v1   with the key in $keys
  Grafana     http://127.0.0.1:${GRAFANA_PORT:-3000}
  Prometheus  http://127.0.0.1:${PROMETHEUS_PORT:-9090}
END
