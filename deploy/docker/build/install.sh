#!/bin/sh
# Installs gemma-serve beside the vLLM that a Python has, and changes no package that is there.
#   install.sh SOURCE [PACKAGE...]
# PYTHON names the interpreter; DRY_RUN=1 resolves and installs nothing; pip's own variables hold, such
# as PIP_INDEX_URL.
set -eu
source=$1
shift
python=${PYTHON:-python3}

if ! "$python" -c 'from importlib.util import find_spec; exit(find_spec("vllm") is None)'; then
    echo "install.sh: $python has no vLLM; build from an image that has, such as" \
        "vllm/vllm-openai:v0.32.0." >&2
    exit 1
fi

# A system's Python may be marked as the distribution's own; an image is ours.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
held=$(mktemp)
trap 'rm -f "$held"' EXIT
"$python" -m pip list --format=freeze --exclude gemma-serve >"$held"
"$python" -m pip install ${DRY_RUN:+--dry-run} --constraint "$held" "$source" "$@"
"$python" -m gemma_serve profiles >/dev/null
