#!/usr/bin/env bash
# The commands of models, from anywhere on a Pod: models sets, models fetch flux1-dev, …
set -euo pipefail
cd /worker
exec "${WORKER_PYTHON:-/opt/worker/bin/python}" -m src.models "$@"
