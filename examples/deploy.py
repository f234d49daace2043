"""Create or update the endpoint of the worker on RunPod, by its REST API v2.

    RUNPOD_API_KEY=… python examples/deploy.py --name comfyui --image YOU/comfyui-worker:TAG --dry-run

An endpoint of that name is updated: only what you give changes, and its environment is added to. Otherwise it is
created, with the defaults that `--help` shows. `--dry-run` prints the request and sends nothing that changes anything.
With `--model` the GraphQL API does it: only that one takes models for RunPod's cache (as in RunPod's own SDK 2).
GPU pools: https://docs.runpod.io/references/gpu-types#gpu-pools; the API: https://docs.runpod.io/api-reference-v2/serverless/create-a-serverless-endpoint
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import requests
from dotenv import dotenv_values

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.settings import may_be_secret

_SECRETS = Path(__file__).resolve().parent.parent / ".secrets"
_TIMEOUT = 30.0
_PATH = "/v2/serverless"
_DEFAULTS: dict[str, Any] = {
    "gpu": ["ADA_24", "ADA_32_PRO", "AMPERE_48", "ADA_48_PRO"],
    "cuda": "13.0",
    "disk": 20,
    "min_workers": 0,
    "max_workers": 3,
    "idle_timeout": 10,
    "queue_delay": 4.0,
    "timeout": 900,
    "flashboot": True,
}
_INIT_TIMEOUT = {"RUNPOD_INIT_TIMEOUT": "800"}  # downloading models may take longer than RunPod's 7 minutes
_SAVE_ENDPOINT = "mutation saveEndpoint($input: EndpointInput!) { saveEndpoint(input: $input) { id name } }"
_REMEDIES = {  # by HTTP status
    401: ["RUNPOD_API_KEY is not accepted: make a key in RunPod's console, Settings > API keys"],
    403: ["this key may not do that: it needs write access to Serverless"],
    429: ["too many requests: wait a minute"],
}


class DeployError(Exception):
    """What went wrong, and what to do."""


class RunPod:
    """The routes of RunPod's REST API v2 that are needed here."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    def find(self, name: str) -> dict[str, Any] | None:
        """The endpoint of that name, None if there is none. Raises DeployError if there are several."""
        found = [endpoint for endpoint in self._call("GET", _PATH)["endpoints"] if endpoint["name"] == name]
        if len(found) > 1:
            ids = ", ".join(endpoint["id"] for endpoint in found)
            raise DeployError(f"{len(found)} endpoints are called {name!r} ({ids}): rename all but one in the console")
        return found[0] if found else None

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create an endpoint; RunPod's description of it. Raises DeployError."""
        return self._call("POST", _PATH, body)

    def update(self, endpoint_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change an endpoint; RunPod's description of it. Raises DeployError."""
        return self._call("PATCH", f"{_PATH}/{endpoint_id}", body)

    def save(self, body: dict[str, Any], models: list[str], current: dict[str, Any] | None) -> dict[str, Any]:
        """Create or update an endpoint, with cached models, by the GraphQL API; its id. Raises DeployError."""
        variables = {"input": graphql_input(body, models, current)}
        answer = self._call("POST", "/graphql", {"query": _SAVE_ENDPOINT, "variables": variables})
        if answer.get("errors"):
            raise DeployError("RunPod's API answered: " + "; ".join(str(e.get("message")) for e in answer["errors"]))
        return dict(answer["data"]["saveEndpoint"])

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        hint = "" if method == "GET" else "; look into the console whether it was done before you try again"
        try:
            response = self._session.request(
                method, self._url + path, json=body, timeout=_TIMEOUT, allow_redirects=False
            )
            answer = response.json()
        except requests.exceptions.JSONDecodeError as error:
            raise DeployError(f"RunPod's API answered {response.status_code}, without JSON{hint}") from error
        except requests.RequestException as error:
            raise DeployError(f"RunPod's API does not answer ({type(error).__name__}){hint}") from error
        if response.status_code // 100 != 2 or not isinstance(answer, dict):
            raise DeployError(_reason(response.status_code, answer))
        return answer


def _reason(status: int, answer: Any) -> str:
    """The message of an error answer: RFC 9457's `title` and `detail`, and RunPod's list of `errors`."""
    problem = answer if isinstance(answer, dict) else {}
    reasons = [problem.get("detail") or problem.get("title") or "no reason given", *(problem.get("errors") or [])]
    return f"RunPod's API answered {status}: " + "; ".join(map(str, [*reasons, *_REMEDIES.get(status, [])]))


def creation_body(options: argparse.Namespace) -> dict[str, Any]:
    """The request body that creates an endpoint: the given options, and defaults for the others."""
    for name, default in _DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if not options.image:
        raise DeployError(f"there is no endpoint {options.name!r} yet: say its image (--image YOU/NAME:TAG)")
    options.env = {**_INIT_TIMEOUT, **options.env}
    return {"name": options.name, "type": "QUEUE", **_requested_fields(options), "env": options.env}


def update_body(options: argparse.Namespace, current: dict[str, Any]) -> dict[str, Any]:
    """The request body that changes an endpoint: the given options, and what RunPod would otherwise drop or refuse."""
    body = _requested_fields(options)
    gpu, current_gpu = body.get("gpu", {}), current.get("gpu") or {}
    if current.get("type", "QUEUE") != "QUEUE":
        raise DeployError(
            f"the endpoint {options.name!r} is no queue ({current['type']}): the worker needs one of its own"
        )
    if current_gpu.get("excludedTypes") and set(gpu.get("pools", [])) == set(current_gpu.get("pools") or []):
        gpu["excludedTypes"] = current_gpu["excludedTypes"]
    if "minCudaVersion" in gpu:
        gpu["allowedCudaVersions"] = []  # RunPod accepts only one of the two
    if "workers" in body:
        body["workers"] = {**(current.get("workers") or {}), **body["workers"]}
    if options.env:
        body["env"] = {**(current.get("env") or {}), **options.env}
    if not body and not options.model:
        raise DeployError(f"nothing to change: give --image or another option for the endpoint {options.name!r}")
    return body


def graphql_input(body: dict[str, Any], models: list[str], current: dict[str, Any] | None) -> dict[str, Any]:
    """The input of `saveEndpoint` for a body of the REST API: the whole endpoint, as it replaces what there is.

    The names are those that RunPod's SDK 2 translates from one API to the other (runpod/apps/api.py).
    """
    whole = {**(current or {}), **body}
    gpu, workers = {**((current or {}).get("gpu") or {}), **body.get("gpu", {})}, whole.get("workers") or {}
    scaling = whole.get("scaling") or {}
    name = whole["name"]
    template = {
        "name": name,
        "imageName": whole.get("image"),
        "containerDiskInGb": whole.get("disk"),
        "dockerArgs": whole.get("args", ""),
        "containerRegistryAuthId": whole.get("registry"),
        "env": [{"key": key, "value": value} for key, value in (whole.get("env") or {}).items()],
    }
    values = {
        "id": (current or {}).get("id"),
        "name": name,
        "type": "QB",
        "gpuIds": ",".join([*gpu.get("pools", []), *(f"-{excluded}" for excluded in gpu.get("excludedTypes") or [])]),
        "gpuCount": gpu.get("count"),
        "minCudaVersion": gpu.get("minCudaVersion"),
        "allowedCudaVersions": ",".join(gpu.get("allowedCudaVersions") or []) or None,
        "workersMin": workers.get("min"),
        "workersMax": workers.get("max"),
        "idleTimeout": workers.get("idleTimeout"),
        "scalerType": scaling.get("type"),
        "scalerValue": scaling.get("queueDelay", scaling.get("requestCount")),
        "executionTimeoutMs": whole.get("timeout"),
        "flashBootType": whole.get("flashboot"),
        "locations": ",".join(whole.get("dataCenterIds") or []) or None,
        "networkVolumeIds": [{"networkVolumeId": volume} for volume in whole.get("networkVolumes") or []] or None,
        "modelReferences": models,
        "template": _without_none(template),
    }
    return _without_none(values)


def _requested_fields(options: argparse.Namespace) -> dict[str, Any]:
    workers = {"min": options.min_workers, "max": options.max_workers, "idleTimeout": options.idle_timeout}
    gpu = {"pools": options.gpu, "minCudaVersion": options.cuda}
    body = {
        "image": options.image,
        "registry": options.registry,
        "disk": options.disk,
        "gpu": _without_none(gpu) or None,
        "workers": _without_none(workers) or None,
        "scaling": _scaling(options.queue_delay),
        "timeout": None if options.timeout is None else options.timeout * 1000,
        "flashboot": None if options.flashboot is None else ("FLASHBOOT" if options.flashboot else "OFF"),
        "networkVolumes": options.volume or None,
        "dataCenterIds": options.data_center or None,
    }
    return _without_none(body)


def _scaling(queue_delay: float | None) -> dict[str, Any] | None:
    return None if queue_delay is None else {"type": "QUEUE_DELAY", "queueDelay": queue_delay}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def format_body(body: dict[str, Any], given: dict[str, str]) -> str:
    """The body as JSON for the terminal: shows the values of given variables only, and no secrets."""
    variables = {
        name: "(kept)" if name not in given else "(hidden)" if _is_hidden(name, value) else value
        for name, value in body.get("env", {}).items()
    }
    return json.dumps({**body, "env": variables} if variables else body, indent=2)


def _is_hidden(name: str, value: str) -> bool:
    return name not in _INIT_TIMEOUT and may_be_secret(name) and not value.startswith("{{ RUNPOD_SECRET_")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    return name, value


def _secret(text: str) -> tuple[str, str]:
    name, value = _variable(text if "=" in text else f"{text}={text}")
    return name, f"{{{{ RUNPOD_SECRET_{value} }}}}"


def _model(text: str) -> str:
    found = re.fullmatch(r"(?:https://huggingface\.co/)?([\w.-]+/[\w.-]+)(?:(?::|/tree/)([\w.-]+))?/?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be ORGANISATION/NAME or ORGANISATION/NAME:REVISION, not {text!r}")
    return ":".join(part for part in found.groups() if part)


def _pools(text: str) -> list[str]:
    return [pool.strip() for pool in text.split(",") if pool.strip()]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"defaults: {_DEFAULTS}"
    )
    add = parser.add_argument
    add("--name", required=True, help="what the endpoint is called")
    add("--image", help="the image: YOU/comfyui-worker:TAG")
    add(
        "--gpu", type=_pools, metavar="POOL,…", help="GPU pools: https://docs.runpod.io/references/gpu-types#gpu-pools"
    )
    add("--cuda", metavar="VERSION", help="lowest CUDA of the host: 13.0 for cu130 images, 12.8 for cu128")
    add("--disk", type=int, metavar="GB", help="container disk; more if models are fetched to it")
    add("--min-workers", type=int, metavar="N", help="0 costs nothing while idle")
    add("--max-workers", type=int, metavar="N")
    add("--idle-timeout", type=int, metavar="SECONDS", help="how long a worker waits for another job; it is billed")
    add("--queue-delay", type=float, metavar="SECONDS", help="how long a job waits before another worker starts")
    add("--timeout", type=int, metavar="SECONDS", help="longest job; a little more than JOB_TIMEOUT")
    add("--volume", action="append", metavar="ID", help="network volumes, in place of those there are")
    add("--data-center", action="append", metavar="ID", help="data centers, in place of those there are")
    add(
        "--model",
        action="append",
        type=_model,
        default=[],
        metavar="ORG/NAME[:REVISION]",
        help="a Hugging Face repository that RunPod caches on the host, in place of those there are",
    )
    add("--registry", metavar="ID", help="registry credential in RunPod, for a private image")
    add("--flashboot", action=argparse.BooleanOptionalAction, default=None, help="RunPod's faster cold start")
    add(
        "--env", action="append", type=_variable, default=[], metavar="NAME=VALUE", help="a setting (docs/settings.md)"
    )
    add(
        "--secret",
        action="append",
        type=_secret,
        default=[],
        metavar="NAME[=SECRET]",
        help="a setting from a RunPod secret",
    )
    add("--dry-run", action="store_true", help="print the request, change nothing")
    add("--api-url", default="https://api.runpod.io", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.env = dict([*options.env, *options.secret])
    return options


def main(arguments: list[str] | None = None) -> int:
    """Create or update the endpoint; the exit status."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    key = os.environ.get("RUNPOD_API_KEY") or dotenv_values(_SECRETS).get("RUNPOD_API_KEY")
    try:
        if not key:
            raise DeployError("set RUNPOD_API_KEY, in the environment or in .secrets; RunPod's console makes one")
        runpod = RunPod(options.api_url, key)
        current = runpod.find(options.name)
        body = creation_body(options) if current is None else update_body(options, current)
        request = f"POST {_PATH}" if current is None else f"PATCH {_PATH}/{current['id']}"
        print("POST /graphql saveEndpoint, with these fields of its own names" if options.model else request)
        print(format_body({**body, "modelReferences": options.model} if options.model else body, options.env))
        if options.dry_run:
            return 0
        if options.model:
            endpoint = runpod.save(body, options.model, current)
        else:
            endpoint = runpod.create(body) if current is None else runpod.update(current["id"], body)
    except DeployError as error:
        print(f"deploy.py: {error}", file=sys.stderr)
        return 1
    print(f"{'created' if current is None else 'updated'}: endpoint {endpoint['id']}")
    print(
        f"a first job: curl -s https://api.runpod.ai/v2/{endpoint['id']}/runsync -d @test_input.json "
        "-H 'Content-Type: application/json' -H \"Authorization: Bearer $RUNPOD_API_KEY\""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
