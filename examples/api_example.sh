#!/usr/bin/env bash
# One job by curl: send it, ask until it has ended, save its pictures. Needs curl and python3.
#
#     RUNPOD_ENDPOINT_ID=… RUNPOD_API_KEY=… examples/api_example.sh test_input.json output
#     ENDPOINT_URL=http://127.0.0.1:8000/v2/local examples/api_example.sh test_input.json output
set -euo pipefail
[[ $# -eq 2 && -f $1 ]] || { echo "usage: $0 REQUEST.json FOLDER     a request is {\"input\": {\"workflow\": …}}" >&2; exit 2; }
url=${ENDPOINT_URL:-https://api.runpod.ai/v2/${RUNPOD_ENDPOINT_ID:?is the id of the endpoint}}
status=$(mktemp)
trap 'rm -f "$status"' EXIT

# ask METHOD ROUTE [curl arguments…]: the answer goes to $status; curl ends with 22 if the endpoint refuses.
ask() {
    curl -sS --fail -X "$1" "$url/$2" -H "Authorization: Bearer ${RUNPOD_API_KEY:-}" -o "$status" "${@:3}"
}
# field NAME: a field of the last answer.
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
import sys

status = json.load(open(sys.argv[1]))
output = status.get("output") or {}
if status["status"] != "COMPLETED" or output.get("status") != "success":
    sys.exit(f"{status['status']}: {output.get('error') or status.get('error') or 'there is no result'}")
for name, image in zip(output["filenames"], output["images"]):
    place = pathlib.Path(sys.argv[2], pathlib.Path(name).name)
    place.write_bytes(base64.b64decode(image))
    print(place)
PYTHON
