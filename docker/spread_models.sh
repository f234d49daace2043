#!/usr/bin/env bash
# Download models and spread them over folders that each become an image layer: one for each of the eight largest files,
# one for the rest.
set -euo pipefail
[[ $# -eq 2 ]] || { echo "usage: $0 FOLDER SET,…" >&2; exit 2; }
baked=$1 sets=$2

if [[ -z $sets ]]; then
    echo "no models given: build with --build-arg MODELS=SET,…; python -m src.models sets lists the sets" >&2
    exit 2
fi
manifest=$(dirname "${BASH_SOURCE[0]}")/models.json
if [[ -f $manifest ]]; then export MODELS_MANIFEST=$manifest; fi
mkdir -p "$baked"/{00,01,02,03,04,05,06,07,rest}
IFS=, read -ra names <<< "${sets// /}"
"${WORKER_PYTHON:-/opt/worker/bin/python}" -m src.models fetch "${names[@]}" --folder "$baked/fetched"

layer=0
while IFS=' ' read -r _ file; do
    name=rest
    if ((layer < 8)); then name=$(printf '%02d' "$layer"); fi
    mkdir -p "$baked/$name/$(dirname "$file")"
    mv "$baked/fetched/$file" "$baked/$name/$file"
    layer=$((layer + 1))
done < <(find "$baked/fetched" -type f -printf '%s %P\n' | sort -k1,1nr -k2)
rm -r "$baked/fetched"
# Fixed times: the same file gives the same layer, whenever it was downloaded.
find "$baked" -exec touch --no-dereference --date=@0 {} +
