"""Make pictures on a RunPod endpoint of the worker, or on a local one: a command, and a module to import.

    python examples/api_example.py --workflow examples/workflow_api_format.json --prompt "a cat" --seed 7
    python examples/api_example.py --local --workflow saved.json --image photo.png --set steps=8 --sheet

The endpoint and its key come from the command line, from RUNPOD_ENDPOINT_ID and RUNPOD_API_KEY, or from `.secrets`
beside this repository. `--local` asks an endpoint on this machine (`python serverless_worker.py --serve`). Files that
the job makes are saved to `--output`. Ctrl-C cancels the job. It needs `requests`, and Pillow for `--sheet`.

As a module:

    from api_example import Endpoint, generate
    result = generate(Endpoint.of("ENDPOINT_ID", "KEY"), workflow, prompt="a cat", seed=7)
    print(result.files, result.seed)
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

Json = dict[str, Any]
Tell = Callable[[Json], None]
"""Called with the status of a job each time it was polled."""

RUNPOD = "https://api.runpod.ai/v2"
LOCAL = "http://127.0.0.1:8000/v2/local"
_SECRETS = Path(__file__).resolve().parent.parent / ".secrets"
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
_CONNECT_SECONDS, _READ_SECONDS, _SYNC_SECONDS = 10.0, 60.0, 120.0
_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS, _POLL_GROWTH = 0.25, 2.0, 1.3
_ATTEMPTS = 5
_MAX_REQUEST_BYTES = {"run": 10_000_000, "runsync": 20_000_000}
"""RunPod's limit for the size of a request, by route."""
_REMEDIES = {  # by HTTP status
    401: "the key is not accepted: set RUNPOD_API_KEY to a key from RunPod's console (Settings > API keys), or with "
    "--local give the endpoint's SERVE_API_KEY by --key",
    403: "this key may not use this endpoint: it needs access to Serverless",
    404: "the endpoint does not exist, or the job is too old: check RUNPOD_ENDPOINT_ID (the id, not the name)",
    429: "too many requests for this endpoint: wait a moment",
}


class JobError(Exception):
    """A job gave no result: what went wrong and what to do. `answer` is the endpoint's answer."""

    def __init__(self, message: str, answer: Json | None = None) -> None:
        super().__init__(message)
        self.answer = answer or {}


@dataclass(frozen=True)
class Result:
    """The result of a job: the saved files, its seed if it has one, warnings, and the worker's complete answer."""

    files: list[Path]
    seed: int | None
    warnings: list[str]
    answer: Json = field(repr=False)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint of the worker: `url` is `https://api.runpod.ai/v2/ID`, or the URL of a local one."""

    url: str
    key: str = field(default="", repr=False)

    @staticmethod
    def of(endpoint_id: str, key: str) -> Endpoint:
        """The RunPod endpoint with that id."""
        return Endpoint(f"{RUNPOD}/{endpoint_id}", key)

    def run(
        self, job_input: Json, tell: Tell = lambda status: None, timeout: float = 900.0, sync: bool = False
    ) -> Json:
        """Run one job; the worker's answer. The job is cancelled on an interrupt, or after `timeout` seconds.

        `sync` uses /runsync, which accepts up to 20 MB and keeps results for only a minute. Raises JobError.
        """
        route = "runsync" if sync else "run"
        body = json.dumps({"input": job_input}).encode()
        limit = _MAX_REQUEST_BYTES[route]
        if len(body) > limit:
            raise JobError(
                f"the request is {len(body) / 1e6:.1f} MB and RunPod takes {limit // 10**6} MB by /{route}: "
                "send smaller files, or URLs to them" + ("" if sync else ", or use /runsync, which takes 20 MB")
            )
        end = time.monotonic() + timeout
        status = self._request("POST", route, body)
        job_id = status.get("id")
        if not isinstance(job_id, str):
            raise JobError(f"the endpoint returned no id for the job: {str(status)[:300]}", status)
        try:
            wait = _FIRST_POLL_SECONDS
            while status.get("status") not in _ENDED:
                tell(status)
                if time.monotonic() > end:
                    raise JobError(f"the job did not end within {timeout:g} s and was cancelled; raise the timeout")
                time.sleep(wait)
                wait = min(wait * _POLL_GROWTH, _MAX_POLL_SECONDS)
                status = self._request("GET", f"status/{job_id}")
            tell(status)
        except BaseException:
            if status.get("status") not in _ENDED:
                with contextlib.suppress(JobError, KeyboardInterrupt):
                    self._request("POST", f"cancel/{job_id}")
            raise
        return _worker_answer(status)

    def health(self) -> Json:
        """How many jobs and workers there are. Raises JobError."""
        return self._request("GET", "health")

    def _request(self, method: str, route: str, body: bytes | None = None) -> Json:
        """The endpoint's answer. Transient failures are retried, unless the retry could run a job twice."""
        seconds = _SYNC_SECONDS if route == "runsync" else _READ_SECONDS
        headers = {"Content-Type": "application/json"} if body else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(1, _ATTEMPTS + 1):
            is_last, reason = attempt == _ATTEMPTS, ""
            try:
                response = requests.request(
                    method, f"{self.url}/{route}", data=body, headers=headers, timeout=(_CONNECT_SECONDS, seconds)
                )
            except (requests.exceptions.ConnectTimeout, requests.exceptions.ConnectionError) as error:
                if is_last or (body and not _was_refused(error)):
                    raise JobError(f"{self.url} cannot be reached{self._hint()}") from error
            except requests.RequestException as error:
                if is_last or body:
                    raise JobError(f"{self.url} did not answer within {seconds:g} s") from error
            else:
                if response.ok:
                    return _decode(response)
                reason = _reason(response)
                is_transient = response.status_code in (429, 503) or (response.status_code >= 500 and not body)
                if is_last or not is_transient:
                    raise JobError(reason)
            time.sleep(0.5 * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _hint(self) -> str:
        local = "is `python serverless_worker.py --serve` running?"
        return f": {local}" if "127.0.0.1" in self.url or "localhost" in self.url else "; is the network up?"


def generate(
    endpoint: Endpoint,
    workflow: Json | str | None,
    *,
    images: Mapping[str, Path | str] | None = None,
    files: Mapping[str, Path | str] | None = None,
    folder: Path | str = "output",
    tell: Tell = lambda status: None,
    timeout: float = 900.0,
    sync: bool = False,
    **fields: Any,
) -> Result:
    """Run a workflow and save the files that it makes in `folder`.

    The workflow is in API format, as the editor saves it, or the name of a stored one. `images` and `files` map the
    names that the workflow uses to paths or URLs. `fields` are any other fields of docs/input.md: prompt, seed, width,
    height, steps, overrides, output, … Raises JobError.
    """
    job_input: Json = {**({"workflow": workflow} if workflow is not None else {}), **fields}
    job_input["output"] = {"answer": "standard", **(fields.get("output") or {})}
    for kind, key, given in (("images", "image", images), ("files", "data", files)):
        if given:
            job_input[kind] = [_input_file(name, source, key) for name, source in given.items()]
    answer = endpoint.run(job_input, tell, timeout, sync)
    saved = list(_save_files(answer, Path(folder)))
    return Result(saved, answer.get("seed"), [str(warning) for warning in answer.get("warnings") or []], answer)


# --- The endpoint's answers -----------------------------------------------------------------------------


def _was_refused(error: Exception) -> bool:
    """Whether no connection was made, so that the request cannot have arrived."""
    return isinstance(error, requests.exceptions.ConnectTimeout) or "NewConnectionError" in str(error)


def _decode(response: requests.Response) -> Json:
    try:
        decoded = response.json()
    except ValueError as error:
        raise JobError(f"{response.url} did not return valid JSON; is it an endpoint?") from error
    if not isinstance(decoded, dict):
        raise JobError(f"{response.url} did not return a JSON object; is it an endpoint?")
    return decoded


def _reason(response: requests.Response) -> str:
    """What an HTTP error means and what to do."""
    with contextlib.suppress(ValueError, AttributeError):
        message = response.json().get("error")
        if message:
            return f"{response.status_code}: {_REMEDIES.get(response.status_code, 'refused')} ({str(message)[:300]})"
    if response.status_code >= 500:
        return f"{response.status_code}: the endpoint has an internal error; try again later"
    return f"{response.status_code}: {_REMEDIES.get(response.status_code, response.text[:300])}"


def _worker_answer(status: Json) -> Json:
    """The worker's answer in the status of an ended job. Raises JobError unless it succeeded."""
    output, state = status.get("output"), status.get("status")
    if state == "CANCELLED":
        raise JobError("the job was cancelled", status)
    if state == "TIMED_OUT":
        raise JobError(
            "the job exceeded RunPod's execution timeout: raise it in the endpoint's settings, or use fewer steps",
            status,
        )
    answer = output if isinstance(output, dict) else {}
    if state == "FAILED" or answer.get("status") == "error":
        code, message = answer.get("error_code"), answer.get("error") or status.get("error") or "no reason was given"
        raise JobError(f"{message}" + (f" [{code}]" if code else ""), {**status, **answer})
    if not isinstance(output, dict):
        raise JobError(
            "the job succeeded, but its result is missing: it was too large for RunPod (10 MB for /run, 20 MB for "
            "/runsync), or too old. Set up a bucket for the worker, or request a smaller format",
            status,
        )
    return output


# --- Files ----------------------------------------------------------------------------------------------


def _input_file(name: str, source: Path | str, key: str) -> Json:
    if isinstance(source, str) and source.startswith(("https://", "http://", "s3://", "data:")):
        return {"name": name, "url" if not source.startswith("data:") else key: source}
    try:
        return {"name": name, key: base64.b64encode(Path(source).read_bytes()).decode()}
    except OSError as error:
        raise JobError(f"{source} cannot be read: {error.strerror}") from error


def _save_files(answer: Json, folder: Path) -> Iterator[Path]:
    """Save each file of the answer below the folder, under an unused name; the paths."""
    pictures = answer.get("images") or []
    suffix = answer.get("seed") if answer.get("seed") is not None else str(answer.get("prompt_id", ""))[:8]
    for entry in answer.get("files") or []:
        if "image_index" in entry:
            content = base64.b64decode(pictures[entry["image_index"]])
        elif "data" in entry:
            content = base64.b64decode(entry["data"])
        elif entry.get("url"):
            content = _download(entry["url"])
        else:  # in a bucket, without a presigned URL
            continue
        wanted = folder / _safe_path(str(entry.get("name") or "file"))
        wanted.parent.mkdir(parents=True, exist_ok=True)
        file = _unused_path(wanted, str(suffix))
        file.write_bytes(content)
        yield file


def _download(url: str) -> bytes:
    try:
        response = requests.get(url, timeout=(_CONNECT_SECONDS, _READ_SECONDS))
        response.raise_for_status()
    except requests.RequestException as error:
        raise JobError(f"a file of the job cannot be fetched from the bucket: {type(error).__name__}") from error
    return response.content


def _safe_path(name: str) -> Path:
    """A file name of an answer as a relative path that cannot lead out of the folder."""
    parts = [re.sub(r"[^\w.+-]", "_", part) for part in re.split(r"[/\\]", name)]
    return Path(*([part for part in parts if part.strip(".")] or ["file"]))


def _unused_path(file: Path, suffix: str) -> Path:
    """`name-suffix.png`, with a number appended if that file exists; it is made, so that no other job takes it."""
    stem = f"{file.stem.strip('_') or 'file'}-{suffix}" if suffix else file.stem
    for number in range(1, 100_000):
        candidate = file.with_name(f"{stem}{'' if number == 1 else f'-{number}'}{file.suffix}")
        try:
            candidate.touch(exist_ok=False)
        except FileExistsError:
            continue
        return candidate
    raise JobError(f"{file.parent} is full of files called {stem}")


def contact_sheet(pictures: Sequence[Path], place: Path, side: int = 256) -> Path:
    """Save a contact sheet to `place`: the pictures in a grid, each at most `side` pixels. Needs Pillow."""
    from PIL import Image, ImageOps  # noqa: PLC0415  only needed here

    columns = max(1, round(len(pictures) ** 0.5 + 0.4))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for number, picture in enumerate(pictures):
        with Image.open(picture) as opened:
            small = ImageOps.contain(opened.convert("RGB"), (side, side))
        left, top = number % columns * side, number // columns * side
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
    sheet.save(place)
    return place


# --- The terminal ---------------------------------------------------------------------------------------


class Progress:
    """One line on stderr: the progress of the job, the node that runs, the seconds so far.

    The newest preview is saved as `preview.jpg` in the folder `previews`, if there is one.
    """

    def __init__(self, previews: Path | None = None) -> None:
        self._began = time.monotonic()
        self._last = ""
        self._previews = previews

    def tell(self, status: Json) -> None:
        """Show the status of a job."""
        state, output = str(status.get("status", "")), status.get("output")
        progress = output if isinstance(output, dict) and state == "IN_PROGRESS" else {}
        line = {"IN_QUEUE": "waiting for a worker", "IN_PROGRESS": "running"}.get(state, state.lower())
        if "percent" in progress:
            step = f", step {progress['step']} of {progress['steps']}" if progress.get("steps") else ""
            done = int(progress["percent"]) // 5
            line = f"[{'#' * done}{'.' * (20 - done)}] {progress['percent']} % {progress.get('node', '')}{step}"
        if self._previews and "preview" in progress:
            self._previews.mkdir(parents=True, exist_ok=True)
            (self._previews / "preview.jpg").write_bytes(base64.b64decode(progress["preview"]))
        line = "".join(c for c in line if c.isprintable())[:100]
        if sys.stderr.isatty():
            shown = f"{line}  {time.monotonic() - self._began:.0f} s"
            print(f"\r\x1b[K{shown}", end="" if state not in _ENDED else "\n", file=sys.stderr, flush=True)
        elif line != self._last:
            print(line, file=sys.stderr, flush=True)
        self._last = line


def show(picture: Path) -> None:
    """Show a picture in terminals that can: iTerm2, WezTerm, kitty."""
    if not sys.stdout.isatty():
        return
    content = base64.b64encode(picture.read_bytes()).decode()
    if os.environ.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        print(f"\x1b]1337;File=inline=1;width=40;preserveAspectRatio=1:{content}\a")
    elif "kitty" in os.environ.get("TERM", "") and picture.suffix == ".png":
        chunks = [content[start : start + 4096] for start in range(0, len(content), 4096)]
        for number, chunk in enumerate(chunks):
            head = "a=T,f=100,c=40," if number == 0 else ""
            sys.stdout.write(f"\x1b_G{head}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
        print()


def main(arguments: list[str] | None = None) -> int:
    """Run one job. The exit status: 0 files saved, 1 job failed, 2 wrong arguments, 130 cancelled."""
    options = _parse(arguments)
    progress = Progress(options.previews)
    try:
        result = generate(
            endpoint_of(options),
            read_workflow(options.workflow),
            images=dict(options.image),
            files=dict(options.file),
            folder=options.output,
            tell=progress.tell,
            timeout=options.timeout,
            sync=options.sync,
            **_fields(options),
        )
    except JobError as error:
        print(f"failed: {error}", file=sys.stderr)
        for warning in error.answer.get("warnings") or []:
            print(f"note: {warning}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncancelled", file=sys.stderr)
        return 130
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
    for text in result.answer.get("text") or []:
        print(text)
    pictures = [file for file in result.files if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".avif")]
    for file in result.files:
        print(file)
    if options.sheet and len(pictures) > 1:
        print(contact_sheet(pictures, _unused_path(Path(options.output) / "sheet.png", str(result.seed or ""))))
    if not options.no_show:
        for picture in pictures:
            show(picture)
    if result.seed is not None:
        print(f"seed {result.seed}", file=sys.stderr)
    return 0


def endpoint_of(options: argparse.Namespace) -> Endpoint:
    """The endpoint that the command line, the environment or `.secrets` name. Raises JobError."""
    if options.local is not None:
        return Endpoint(local_url(options.local), options.key or os.environ.get("SERVE_API_KEY", ""))
    secrets = _secrets()
    endpoint_id = options.endpoint or os.environ.get("RUNPOD_ENDPOINT_ID") or secrets.get("RUNPOD_ENDPOINT_ID")
    key = options.key or os.environ.get("RUNPOD_API_KEY") or secrets.get("RUNPOD_API_KEY")
    if not endpoint_id or not key:
        missing = "the endpoint's id (--endpoint, RUNPOD_ENDPOINT_ID)" if not endpoint_id else "a key (RUNPOD_API_KEY)"
        raise JobError(
            f"{missing} is missing; RunPod's console has the id and keys. --local uses an endpoint on this machine"
        )
    return Endpoint.of(endpoint_id, key)


def local_url(text: str) -> str:
    """The URL of an endpoint on this machine: of a port (`8011`), `host:port`, or a URL with or without its path."""
    url = f"http://127.0.0.1:{text}" if text.isdecimal() else text if "://" in text else f"http://{text}"
    scheme, _, rest = url.rstrip("/").partition("://")
    return f"{scheme}://{rest}" if "/" in rest else f"{scheme}://{rest}/v2/local"


def _secrets() -> dict[str, str]:
    """The NAME=VALUE lines of `.secrets`."""
    try:
        lines = _SECRETS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line and line[:1] != "#")
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def read_workflow(given: str | None) -> Json | str | None:
    """The workflow in a file; a name of a stored workflow is returned as it is. Raises JobError."""
    if given is None or (not Path(given).is_file() and not given.endswith(".json") and "/" not in given):
        return given
    try:
        workflow = json.loads(Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise JobError(f"{given} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise JobError(f"{given} is not valid JSON: {error}") from error
    if not isinstance(workflow, dict):
        raise JobError(f"{given} is not a workflow: it must contain a JSON object")
    return workflow


def _fields(options: argparse.Namespace) -> Json:
    names = ("prompt", "negative_prompt", "seed", "width", "height")
    fields = {**{name: value for name in names if (value := getattr(options, name)) is not None}, **dict(options.set)}
    if options.previews:
        fields["output"] = {"live_previews": True, **(fields.get("output") or {})}
    return fields


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _attachment(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if equals and not Path(text).exists() and "/" not in name:
        return name, source
    return Path(text.partition("?")[0]).name, text


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--workflow",
        metavar="FILE.json",
        help="a file in API format or as the editor saves it, or the name of a stored workflow",
    )
    add("--prompt")
    add("--negative-prompt")
    add("--seed", type=_seed, help="a number, or random")
    add("--width", type=int)
    add("--height", type=int)
    add(
        "--set",
        action="append",
        type=_pair,
        default=[],
        metavar="NAME=VALUE",
        help="any field of docs/input.md: steps=8",
    )
    for kind in ("image", "file"):
        text = f"{'a picture' if kind == 'image' else 'any file'} for the workflow; NAME is its name in the workflow"
        add(f"--{kind}", action="append", type=_attachment, default=[], metavar="[NAME=]PATH_OR_URL", help=text)
    add("--output", default="output", metavar="FOLDER", help="where files are saved (default: output)")
    add("--previews", type=Path, metavar="FOLDER", help="save the newest live preview there, as preview.jpg")
    add("--sheet", action="store_true", help="also save a contact sheet of several images")
    add("--no-show", action="store_true", help="do not show images in the terminal")
    add("--sync", action="store_true", help="use /runsync: larger requests, but results are only kept for a minute")
    add(
        "--timeout",
        type=float,
        default=900.0,
        metavar="SECONDS",
        help="seconds until the job is cancelled (default: 900)",
    )
    add("--endpoint", metavar="ID", help="id of the RunPod endpoint (default: RUNPOD_ENDPOINT_ID)")
    add("--key", help="API key (default: RUNPOD_API_KEY, or SERVE_API_KEY with --local)")
    add(
        "--local",
        nargs="?",
        const=LOCAL,
        metavar="PORT",
        help=f"use an endpoint on this machine: its port or URL (default: {LOCAL})",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
