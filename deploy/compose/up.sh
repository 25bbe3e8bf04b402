#!/bin/sh
# Starts server, nginx, Prometheus and Grafana; makes an API key where there is none.
#   up.sh [OPTION OF docker compose...]
set -eu

# A path is meant from where the caller is; Compose would read it from here.
keys=${GEMMA_SERVE_API_KEYS_FILE:-}
case $keys in
    "" | /*) ;;
    *) keys=$PWD/$keys ;;
esac
cd "$(dirname "$0")"
keys=${keys:-$PWD/secrets/api-keys}
export GEMMA_SERVE_API_KEYS_FILE="$keys"

if [ ! -e "$keys" ]; then
    folder=$(dirname "$keys")
    # Others are kept out by the directory, and one that is not ours stays as it is.
    if [ -e "$folder" ] && [ "$folder" != "$PWD/secrets" ]; then
        echo "up.sh: GEMMA_SERVE_API_KEYS_FILE '$keys' does not exist, and a new key is only put" \
            "into a directory that is new too; write one key a line into it, or leave the" \
            "variable out." >&2
        exit 1
    fi
    mkdir -p "$folder"
    chmod 700 "$folder"
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$keys"
    # In the container, another user reads the file.
    chmod 644 "$keys"
    echo "Made an API key: $keys"
fi

docker compose --file compose.yaml "$@" up --build --detach
cat <<END
Starting; the first time takes minutes. To watch it:
  docker compose --file $PWD/compose.yaml logs --follow gemma-serve
  API         http://127.0.0.1:${HTTP_PORT:-8000}/v1   with the key in $keys
  Grafana     http://127.0.0.1:${GRAFANA_PORT:-3000}
  Prometheus  http://127.0.0.1:${PROMETHEUS_PORT:-9090}
END
