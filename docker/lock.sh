#!/usr/bin/env bash
# For maintainers: resolve the Python packages of the image again and write docker/constraints/. Run it with Python
# 3.11, the oldest that an image's base may have: newer ones take those versions too.
# usage: docker/lock.sh COMFYUI_FOLDER     a checkout of the version that the Dockerfile names
set -euo pipefail
[[ $# -eq 1 && -f $1/requirements.txt ]] || { echo "usage: $0 COMFYUI_FOLDER" >&2; exit 2; }
comfyui=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

arg() { sed -n "s/^ARG $1=//p" Dockerfile | head -n 1; }

# resolve FILE WHAT ARGUMENT…: write what `pip install ARGUMENT…` installs in a new environment, without torch and its
# libraries, to constraints/FILE.
resolve() {
    local file=$1 what=$2 environment
    shift 2
    environment=$(mktemp -d)
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet "$@"
    {
        echo "# $what. Written by docker/lock.sh; change nothing here by hand."
        "$environment/bin/pip" freeze | grep -v -i -E '^(torch|torchvision|torchaudio|triton|nvidia-|cuda-|comfyui[-_])'
    } > "constraints/$file"
    rm -r "$environment"
    echo "constraints/$file: $(grep -c == "constraints/$file") packages"
}

version=$(arg COMFYUI_VERSION)
found=$(sed -n 's/^__version__ = "\(.*\)"$/v\1/p' "$comfyui/comfyui_version.py")
[[ $found == "$version" ]] || { echo "$comfyui is $found, and the Dockerfile builds $version" >&2; exit 2; }

mkdir -p constraints/comfyui
resolve worker.txt "The worker's environment" -r ../requirements.txt
resolve jupyter.txt "JupyterLab's environment in the Pod image" jupyterlab
resolve "comfyui/$version.txt" "ComfyUI $version, without torch and the editor" -r "$comfyui/requirements.txt" requests \
    "torch==$(arg TORCH_VERSION)" "torchvision==$(arg TORCHVISION_VERSION)" "torchaudio==$(arg TORCHAUDIO_VERSION)"
