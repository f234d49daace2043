"""Create or update the endpoint of the worker on RunPod, by its REST API v2.

    RUNPOD_API_KEY=… python examples/deploy.py --name comfyui --image YOU/comfyui-worker:TAG --dry-run

An endpoint of that name is updated: only the given options change, and variables are added to its environment.
Otherwise it is created, with the defaults that `--help` shows. `--dry-run` prints the request and changes nothing.
With `--workflow FILE` the workflow says what the endpoint takes: models, node packs, GPU memory, disk. It is stored in
the endpoint, so that `"workflow": "NAME"` runs it, and is run once as a check; if an update fails it, the endpoint
gets its former image and environment back.
With `--model` the GraphQL API does it: only that one takes models for RunPod's cache (as in RunPod's own SDK 2).
GPU pools: https://docs.runpod.io/references/gpu-types#gpu-pools; the API: https://docs.runpod.io/api-reference-v2/serverless/create-a-serverless-endpoint
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import requests
from dotenv import dotenv_values

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.errors import WorkerError
from src.settings import may_be_secret, read_settings
from src.settings.stored_workflows import unpack
from src.terminal.files import read_workflow
from src.terminal.plan import OWN_DISK, Plan, plan_endpoint

_SECRETS = Path(__file__).resolve().parent.parent / ".secrets"
_TIMEOUT = 30.0
_POLL_SECONDS = 2.0
_SHOWN_CHARACTERS = 400
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
    401: ["RUNPOD_API_KEY is not accepted: create a key in RunPod's console, Settings > API keys"],
    403: ["this key does not have permission: it needs write access to Serverless"],
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

    def restore(self, endpoint_id: str, former: dict[str, Any]) -> None:
        """Give an endpoint its former image and environment again. Raises DeployError."""
        self.update(endpoint_id, {"image": former["image"], "env": former.get("env") or {}})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        hint = "" if method == "GET" else "; check in the console whether the change was made before you try again"
        try:
            response = self._session.request(
                method, self._url + path, json=body, timeout=_TIMEOUT, allow_redirects=False
            )
            answer = response.json()
        except requests.exceptions.JSONDecodeError as error:
            raise DeployError(f"RunPod's API answered {response.status_code}, without JSON{hint}") from error
        except requests.RequestException as error:
            raise DeployError(f"RunPod's API does not respond ({type(error).__name__}){hint}") from error
        if response.status_code // 100 != 2 or not isinstance(answer, dict):
            raise DeployError(_reason(response.status_code, answer))
        return answer


def _reason(status: int, answer: Any) -> str:
    """The message of an error answer: RFC 9457's `title` and `detail`, and RunPod's list of `errors`."""
    problem = answer if isinstance(answer, dict) else {}
    reasons = [problem.get("detail") or problem.get("title") or "no reason given", *(problem.get("errors") or [])]
    return f"RunPod's API answered {status}: " + "; ".join(map(str, [*reasons, *_REMEDIES.get(status, [])]))


class Jobs:
    """The jobs of one endpoint."""

    def __init__(self, url: str, endpoint_id: str, key: str) -> None:
        self._url = f"{url.rstrip('/')}/{endpoint_id}"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    def run(self, job_input: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Run a job; its output. Raises DeployError if it fails or does not end in time; it is cancelled then."""
        job_id = self._call("POST", "/run", {"input": job_input}).get("id")
        end, shown = time.monotonic() + seconds, ""
        while True:
            told = self._call("GET", f"/status/{job_id}")
            status = str(told.get("status"))
            if status != shown:
                print(f"the check: {status}", flush=True)
                shown = status
            if status == "COMPLETED":
                return dict(told.get("output") or {})
            if status in ("FAILED", "CANCELLED", "TIMED_OUT"):
                raise DeployError(
                    f"the check ended with status {status}: {str(told.get('error') or told.get('output'))[:2000]}"
                )
            if time.monotonic() > end:
                self._call("POST", f"/cancel/{job_id}")
                raise DeployError(f"the check did not end within {seconds:g} s (--wait): see the endpoint's logs")
            time.sleep(_POLL_SECONDS)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        for is_last in (False, False, True):
            try:
                response = self._session.request(method, self._url + path, json=body, timeout=_TIMEOUT)
                answer = response.json()
            except requests.RequestException as error:
                if is_last or method != "GET":
                    raise DeployError(f"the endpoint does not respond ({type(error).__name__})") from error
                time.sleep(_POLL_SECONDS)
                continue
            if response.status_code // 100 != 2 or not isinstance(answer, dict):
                raise DeployError(f"the endpoint answered {response.status_code}: {str(answer)[:300]}")
            return answer
        raise AssertionError("the last attempt raises")


def plan_of(options: argparse.Namespace, current: dict[str, Any] | None) -> Plan:
    """What the workflow of the options takes, put into those options that are not given. Raises DeployError."""
    former = (current or {}).get("env") or {}
    stored = former.get("STORED_WORKFLOWS", "")
    try:
        names = unpack(stored)
    except ValueError as error:
        raise DeployError(f"the endpoint's STORED_WORKFLOWS must be {error}") from error
    try:
        content = read_workflow(options.workflow)
        settings, has_volume = read_settings(), bool(options.volume or (current or {}).get("networkVolumes"))
        plan = plan_endpoint(options.workflow, content, settings, has_volume, options.packs_in_image, stored)
    except OSError as error:
        raise DeployError(f"{options.workflow}: {error.strerror}") from error
    except WorkerError as error:
        raise DeployError(f"{options.workflow.name}: {error.message}") from error
    except ValueError as error:
        raise DeployError(f"{options.workflow.name}: it cannot be stored in a variable ({error})") from error
    for name in ("MODELS", "CUSTOM_NODES"):  # those of other workflows stay
        if former.get(name) and name in plan.env:
            parts = [part.strip() for part in f"{former[name]},{plan.env[name]}".split(",") if part.strip()]
            plan.env[name] = ",".join(dict.fromkeys(parts))
    if "MAX_JOB_MODEL_GB" in former and float(former["MAX_JOB_MODEL_GB"]) > float(plan.env.get("MAX_JOB_MODEL_GB", 0)):
        plan.env.pop("MAX_JOB_MODEL_GB", None)
    options.env = {**plan.env, **options.env}
    if options.gpu is None and plan.pools and current is None:
        options.gpu = plan.pools
    if options.disk is None:
        there = 0 if plan.name in names else max(0, ((current or {}).get("disk") or OWN_DISK) - OWN_DISK)
        wanted = plan.disk + there  # of other workflows, too
        options.disk = wanted if wanted > ((current or {}).get("disk") or 0) else None
    return plan


def check(plan: Plan, jobs: Jobs, seconds: float) -> str:
    """Run the stored workflow once, or validate it if it needs files; what came of it. Raises DeployError."""
    job_input: dict[str, Any] = {"workflow": plan.name, "output": {"answer": "standard"}}
    output = jobs.run(job_input if plan.can_run else {**job_input, "action": "validate"}, seconds)
    if output.get("status") != "success":
        raise DeployError(f"the check failed: {output.get('error') or output}"[:2000])
    if not plan.can_run:
        slots = output.get("inputs") or []
        problems = [problem for problem in output.get("problems") or [] if not _is_of_an_input(problem, slots)]
        if problems:
            raise DeployError("the check failed: " + "; ".join(str(problem["message"]) for problem in problems)[:2000])
        return "the endpoint accepts the workflow; it was not run, because it needs files sent with the job"
    files = [file["name"] for file in output.get("files", [])] or output.get("filenames", [])
    return f"it ran in {output.get('execution_time_seconds')} s and made {', '.join(files) or 'no file'}"


def _is_of_an_input(problem: dict[str, Any], inputs: list[dict[str, Any]]) -> bool:
    """Whether it is about a file that a job has to bring."""
    slots = [(entry["node_id"], entry["input"]) for entry in inputs]
    return (problem.get("node_id"), problem.get("input")) in slots


def creation_body(options: argparse.Namespace) -> dict[str, Any]:
    """The request body that creates an endpoint: the given options, and defaults for the others."""
    for name, default in _DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if not options.image:
        raise DeployError(f"there is no endpoint {options.name!r} yet: give its image (--image YOU/NAME:TAG)")
    options.env = {**_INIT_TIMEOUT, **options.env}
    return {"name": options.name, "type": "QUEUE", **_requested_fields(options), "env": options.env}


def update_body(options: argparse.Namespace, current: dict[str, Any]) -> dict[str, Any]:
    """The request body that changes an endpoint: the given options, and what RunPod would otherwise drop or refuse."""
    body = _requested_fields(options)
    gpu, current_gpu = body.get("gpu", {}), current.get("gpu") or {}
    if current.get("type", "QUEUE") != "QUEUE":
        raise DeployError(
            f"the endpoint {options.name!r} is not queue-based ({current['type']}): use a separate endpoint"
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
        name: "(kept)" if name not in given else "(hidden)" if _is_hidden(name, value) else _shortened(value)
        for name, value in body.get("env", {}).items()
    }
    return json.dumps({**body, "env": variables} if variables else body, indent=2)


def _shortened(value: str) -> str:
    return value if len(value) <= _SHOWN_CHARACTERS else f"({len(value):,} characters)"


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
    add("--name", required=True, help="name of the endpoint")
    add("--image", help="the image: YOU/comfyui-worker:TAG")
    add(
        "--gpu", type=_pools, metavar="POOL,…", help="GPU pools: https://docs.runpod.io/references/gpu-types#gpu-pools"
    )
    add("--cuda", metavar="VERSION", help="lowest CUDA of the host: 13.0 for cu130 images, 12.8 for cu128")
    add("--disk", type=int, metavar="GB", help="container disk; more if models are downloaded to it")
    add("--min-workers", type=int, metavar="N", help="0 costs nothing while idle")
    add("--max-workers", type=int, metavar="N", help="most workers that run at a time")
    add("--idle-timeout", type=int, metavar="SECONDS", help="how long a worker waits for another job; it is billed")
    add("--queue-delay", type=float, metavar="SECONDS", help="how long a job waits before another worker starts")
    add("--timeout", type=int, metavar="SECONDS", help="execution timeout; a little more than JOB_TIMEOUT")
    add("--volume", action="append", metavar="ID", help="network volumes, replacing the current ones")
    add("--data-center", action="append", metavar="ID", help="data centers, replacing the current ones")
    add(
        "--model",
        action="append",
        type=_model,
        default=[],
        metavar="ORG/NAME[:REVISION]",
        help="a Hugging Face repository that RunPod caches on the host, replacing the current ones",
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
    add("--workflow", type=Path, metavar="FILE", help="the workflow for the endpoint, in either format")
    add(
        "--packs-in-image", action="store_true", help="with --workflow: docker/build.sh --workflow has built the image"
    )
    add("--wait", type=float, default=1800.0, metavar="SECONDS", help="with --workflow: how long the check may take")
    add("--no-check", action="store_true", help="with --workflow: do not run it")
    add("--dry-run", action="store_true", help="print the request, change nothing")
    add("--api-url", default="https://api.runpod.io", help=argparse.SUPPRESS)
    add("--jobs-url", default="https://api.runpod.ai/v2", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.env = dict([*options.env, *options.secret])
    return options


def main(arguments: list[str] | None = None) -> int:
    """Create or update the endpoint; the exit status."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    key = os.environ.get("RUNPOD_API_KEY") or dotenv_values(_SECRETS).get("RUNPOD_API_KEY")
    try:
        if not key and not options.dry_run:
            raise DeployError("set RUNPOD_API_KEY, in the environment or in .secrets; create one in RunPod's console")
        runpod = RunPod(options.api_url, key or "")
        current = runpod.find(options.name) if key else None
        if not key:
            print(f"without RUNPOD_API_KEY, as if there were no endpoint {options.name!r} yet:")
        plan = plan_of(options, current) if options.workflow else None
        if plan is not None:
            _show(plan, options)
        body = creation_body(options) if current is None else update_body(options, current)
        request = f"POST {_PATH}" if current is None else f"PATCH {_PATH}/{current['id']}"
        print("POST /graphql saveEndpoint, with these fields under its own names" if options.model else request)
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
    if plan is not None and not options.no_check:
        try:
            print(check(plan, Jobs(options.jobs_url, endpoint["id"], str(key)), options.wait))
        except DeployError as error:
            print(f"deploy.py: {error}", file=sys.stderr)
            return _give_back(runpod, endpoint["id"], current)
    body_of_job = f"""'{{"input": {{"workflow": "{plan.name}"}}}}'""" if plan else "@test_input.json"
    print(
        f"{'a' if plan else 'a first'} job: curl -s {options.jobs_url}/{endpoint['id']}/runsync -d {body_of_job} "
        "-H 'Content-Type: application/json' -H \"Authorization: Bearer $RUNPOD_API_KEY\""
    )
    return 0


def _show(plan: Plan, options: argparse.Namespace) -> None:
    """Print the plan. Raises DeployError if something is open that a volume cannot have."""
    print("\n".join(plan.lines))
    for question in plan.open:
        print(f"open: {question}")
    if plan.open and not (options.volume or options.dry_run):
        raise DeployError(
            "something is unresolved: fix it in the workflow, or put it on a volume and use that (--volume)"
        )


def _give_back(runpod: RunPod, endpoint_id: str, former: dict[str, Any] | None) -> int:
    """After a check that failed: the former image and environment, if there were any; the exit status."""
    if former is None:
        print(f"deploy.py: the endpoint {endpoint_id} is kept, so that its logs can be read", file=sys.stderr)
        return 1
    try:
        runpod.restore(endpoint_id, former)
        print(f"deploy.py: the endpoint {endpoint_id} has its previous image and environment again", file=sys.stderr)
    except DeployError as error:
        print(f"deploy.py: the previous image could not be restored: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
