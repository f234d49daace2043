#!/usr/bin/env bash
# One job by curl: send it, ask until it has ended, save its files. Needs curl and python3.
#
#     RUNPOD_ENDPOINT_ID=… RUNPOD_API_KEY=… examples/api_example.sh test_input.json output
#     ENDPOINT_URL=http://127.0.0.1:8000/v2/local examples/api_example.sh test_input.json output
set -euo pipefail
[[ $# -eq 2 && -f $1 ]] || { echo "usage: $0 REQUEST.json FOLDER     a request is {\"input\": {\"workflow\": …}}" >&2; exit 2; }
url=${ENDPOINT_URL:-https://api.runpod.ai/v2/${RUNPOD_ENDPOINT_ID:?set it and RUNPOD_API_KEY, or ENDPOINT_URL}}
status=$(mktemp)
trap 'rm -f "$status"' EXIT

# ask METHOD ROUTE [curl arguments…]: the response goes to $status; if the endpoint refuses, its reason to stderr.
ask() {
    curl -sS --fail-with-body -X "$1" "$url/$2" -H "Authorization: Bearer ${RUNPOD_API_KEY:-}" -o "$status" "${@:3}" ||
        { cat "$status" >&2; return 22; }
}
# field NAME: a field of the last response.
field() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$status" "$1"
}

ask POST run -H 'Content-Type: application/json' --data-binary "@$1"
id=$(field id)
trap 'ask POST "cancel/$id"; exit 130' INT
while [[ $(field status) == IN_* ]]; do
    sleep 1
    ask GET "status/$id"
done
mkdir -p "$2"
python3 - "$status" "$2" <<'PYTHON'
import base64
import json
import pathlib
import re
import sys
import urllib.request

status = json.load(open(sys.argv[1]))
output = status.get("output") or {}
if status["status"] != "COMPLETED" or output.get("status") != "success":
    sys.exit(f"{status['status']}: {output.get('error') or status.get('error') or 'there is no result'}")
for text in output.get("text", []):
    print(text)
for file in output.get("files", []):
    inline = output["images"][file["image_index"]] if "image_index" in file else file.get("data")
    if inline is None and not file.get("url"):
        sys.exit(f"{file['name']} is in a bucket that cannot be read from here")
    content = base64.b64decode(inline) if inline is not None else urllib.request.urlopen(file["url"], timeout=600).read()
    parts = [re.sub(r"[^\w.+-]", "_", part) for part in re.split(r"[/\\]", file["name"]) if part.strip(".")]
    place = wanted = pathlib.Path(sys.argv[2], *parts)
    number = 1
    while place.exists():
        number += 1
        place = wanted.with_stem(f"{wanted.stem}-{number}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    print(place)
if not output.get("files") and not output.get("text"):
    sys.exit("the job made no file and no text")
PYTHON
