#!/usr/bin/env bash
# The image's entrypoint: prepares the container, then execs the worker, so that signals reach it. Its environment
# variables are in docs/deploy.md. Arguments are passed to serverless_worker.py.
set -euo pipefail

worker=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${WORKER_PYTHON:-python3}
volume=${VOLUME_DIR:-/runpod-volume}
workspace=${WORKSPACE_DIR:-/workspace}

say() { printf 'start.sh: %s\n' "$*" >&2; }

# A network volume is mounted at /workspace on a Pod, at /runpod-volume on Serverless: with this link, paths that were
# set up on a Pod work here too.
link_volume() {
    if [[ -d $volume && ! -e $workspace && ! -L $workspace ]]; then
        ln -s "$volume" "$workspace" 2> /dev/null || say "$workspace cannot be linked to $volume: read-only?"
    fi
}

# ComfyUI allocates and frees gigabytes: tcmalloc returns them to the system where glibc's malloc keeps fragments.
preload_tcmalloc() {
    local library
    [[ -z ${LD_PRELOAD:-} ]] || return 0
    for library in "${TCMALLOC:-/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4}" \
        /usr/lib/aarch64-linux-gnu/libtcmalloc_minimal.so.4; do
        if [[ -f $library ]]; then
            export LD_PRELOAD=$library
            return 0
        fi
    done
}

cd "$worker"
link_volume
preload_tcmalloc

case ${MODE_TO_RUN:=serverless} in
    serverless | test)
        exec "$python" -u serverless_worker.py "$@"
        ;;
    pod)
        if [[ ! -x legacy/start.sh ]]; then
            say "this image has no Pod setup: use the image of the target pod (docker/build.sh --target pod)"
            exit 2
        fi
        exec legacy/start.sh "$@"
        ;;
    *)
        say "MODE_TO_RUN must be serverless, pod or test, not '$MODE_TO_RUN'"
        exit 2
        ;;
esac
