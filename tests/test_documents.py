"""What the documents say is so."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema import ValidationError as JsonSchemaError
from PIL import Image

from examples import deploy
from maintenance.schemas import schemas
from src import errors
from src.errors import InvalidInput, WorkerError
from src.job.fields import InputFields, OutputFields
from src.job.request import read_job
from src.models.manifest import read_manifest, shipped_manifest
from src.settings import Settings, format_value, read_settings, variable
from src.workflow import check_workflow
from src.workflow.stored import stored_workflow

from .conftest import ANSWERS, Bench
from .worker_process import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
INPUT, OUTPUT, SETTINGS, MODELS = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("input", "output", "settings", "models")
)
DOCUMENTS = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("input", "output", "migrating", "settings", "models", "deploy", "operations", "troubleshooting")
    ),
    *(f"docs/{name}.md" for name in ("architecture", "contributing", "storage", "your-workflow")),
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/README.md",
    "docs/performance/README.md",
    "docker/BUILD_COMMANDS.md",
    "legacy/README.md",
)


def test_the_settings_table_is_the_settings() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*) \|$", SETTINGS, re.MULTILINE)
    expected = [
        (
            variable(setting),
            f"`{format_value(setting.default)}`" if format_value(setting.default) else "",
            setting.metadata["meaning"],
        )
        for setting in fields(Settings)
    ]
    assert [(name, default.strip(), meaning) for name, default, meaning in rows] == expected


def test_every_error_code_is_in_the_table() -> None:
    rows = re.findall(r"^\| (.*?) \|", OUTPUT[OUTPUT.index("| `error_code` |") :], re.MULTILINE)
    named = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)} - {"error_code"}
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WorkerError)]
    assert named == {kind.error_code for kind in classes}


def test_the_request_of_the_readme_runs_and_has_the_response_beside_it(draft_bench: Bench) -> None:
    request, shown = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL))
    response = draft_bench.run(**request["input"])
    same = ("status", "filenames", "seed")
    assert {name: response[name] for name in same} == {name: shown[name] for name in same}
    assert shown.keys() <= response.keys()
    with Image.open(io.BytesIO(base64.b64decode(response["images"][0]))) as image:
        assert image.size == (request["input"]["width"], request["input"]["height"])
    with Image.open(ROOT / "docs" / "pictures" / "lighthouse.png") as made:
        assert made.size == image.size


def test_every_request_in_the_documents_is_one(draft_bench: Bench) -> None:
    requests = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", INPUT + OUTPUT, re.DOTALL)]
    assert len(requests) >= 3
    for request in requests:
        assert read_job(request, lambda name: stored_workflow(name, Settings())).warnings == ()


def test_every_input_field_is_documented() -> None:
    for name in InputFields.model_fields:
        assert f"`{name}`" in INPUT, name
    for name in OutputFields.model_fields:
        assert f"| `{name}` |" in OUTPUT, name


def test_the_manifest_in_the_documents_is_one() -> None:
    (example,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", MODELS, re.DOTALL))
    assert read_manifest(example, shipped_manifest()).expand(["our-flux"])


@pytest.mark.parametrize("name", schemas())
def test_the_schemas_are_those_of_the_code(name: str) -> None:
    """`python -m maintenance.schemas` writes them."""
    assert json.loads((ROOT / "docs" / name).read_text()) == schemas()[name]


SOUND = {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}
FITTING: list[dict[str, Any]] = [
    SOUND,
    {"action": "info"},
    {"workflow": "smoke_workflow"},
    {**SOUND, "prompt": "a cat", "seed": 2**64 - 1, "prompt_node_id": 1, "unknown": 1},
    {**SOUND, "seed": "random", "cfg": 3, "denoise": 0.5, "loras": [{"name": "a.safetensors", "strength": 1}]},
    {**SOUND, "seed": -1, "steps": "20", "cfg": "7.5", "width": "512", "height": 512.0},
    {**SOUND, "seed": "42", "sampler_name": "", "steps": "", "images": "", "output": "", "prompt": ""},
    {**SOUND, "output": {"previews": "true", "metadata": "", "quality": "80", "answer": "worker-comfyui"}},
    {**SOUND, "images": [{"name": "a.png", "image": "aGk=", "url": "", "data": None}]},
    {
        **SOUND,
        "seed": " Random ",
        "output": {"previews": "TRUE", "live_previews": "False", "metadata": " false ", "background": None},
    },
    {**SOUND, "action": None, "loras": None, "inputs": None, "overrides": "", "files": None, "output": None},
    {**SOUND, "steps_node_id": 5.0, "steps": 3, "comfy_org_api_key": None},
    {**SOUND, "output": {"format": "jpg", "quality": 80, "background": "#ffffff"}},
    {**SOUND, "images": [{"name": "a.png", "image": "aGk="}], "files": [{"name": "b", "url": "https://a.example/b"}]},
]
UNFIT: list[dict[str, Any]] = [
    {},
    {"action": "validate"},
    {"workflow": 5},
    {**SOUND, "action": "stop"},
    {**SOUND, "prompt": 5},
    {"workflow": ""},
    {**SOUND, "images": [{"name": "", "image": "aGk="}]},
    {**SOUND, "seed": -2},
    {**SOUND, "seed": "seven"},
    {**SOUND, "seed": True},
    {**SOUND, "output": {"previews": "yes"}},
    {**SOUND, "images": [{"name": "a.png", "image": "", "url": ""}]},
    {**SOUND, "width": 1001, "height": 8},
    {**SOUND, "denoise": 1.5},
    {**SOUND, "loras": [{"strength": 1}]},
    {**SOUND, "loras": [{"name": "a", "strenght": 1}]},
    {**SOUND, "output": {"format": "bmp"}},
    {**SOUND, "output": {"background": "red"}},
    {**SOUND, "images": [{"name": "a.png"}]},
    {**SOUND, "images": [{"name": "a.png", "image": "aGk=", "url": "https://a.example/b"}]},
]


@pytest.mark.parametrize("given", [*FITTING, *UNFIT], ids=repr)
def test_the_schema_of_the_input_says_what_the_worker_says(given: dict[str, Any]) -> None:
    fits = given in FITTING
    assert Draft202012Validator(schemas()["input.schema.json"]).is_valid(given) == fits
    if fits:
        read_job({"input": given}, lambda name: stored_workflow(name, Settings()))
    else:
        with pytest.raises(InvalidInput):
            read_job({"input": given})


def test_answers_are_what_their_schema_says(bench: Bench) -> None:
    """A `Bench` holds every answer to it; here is one of each kind, and that it can say no."""
    smoke = json.loads((ROOT / "examples" / "smoke_workflow.json").read_text())
    answers = [
        bench.run(workflow=smoke, widht=5),
        bench.run(workflow=smoke, action="validate"),
        bench.run(action="info"),
        bench.run(workflow=smoke, prompt="a cat"),
        bench.run(workflow={"1": {"class_type": "Nope", "inputs": {}}}),
    ]
    assert [answer["status"] for answer in answers] == ["success", "success", "success", "error", "error"]
    for answer in answers:
        with pytest.raises(JsonSchemaError):
            ANSWERS.validate({**answer, "status": "fine"})


def test_every_set_of_models_is_documented_with_its_use() -> None:
    rows = re.findall(r"^\| (`[a-z0-9`, -]+`) \| .* \| (.*) \|$", MODELS, re.MULTILINE)
    told = {name: use for names, use in rows for name in re.findall(r"`([a-z0-9-]+)`", names)}
    manifest = shipped_manifest()
    assert told.keys() == manifest.sets.keys()
    for name, use in told.items():
        assert (use == "yes") == all(model.commercial_ok for model in manifest.expand([name])), name


def test_the_example_of_secrets_has_variables_that_there_are() -> None:
    lines = [line for line in (ROOT / ".secrets.example").read_text().splitlines() if not line.startswith("#")]
    assert {line.partition("=")[0] for line in lines} <= {variable(setting) for setting in fields(Settings)}
    read_settings({line.partition("=")[0]: line.partition("=")[2] for line in lines})


def test_every_field_of_an_answer_is_documented(draft_bench: Bench) -> None:
    given = json.loads((ROOT / "test_input.json").read_text())["input"]
    answer = draft_bench.run(**given, steps=1, widht=5)
    for name in (*answer, *answer["files"][0], *answer["timings"]):
        assert f"`{name}`" in OUTPUT, name


def test_the_python_example_gives_the_bytes(draft_bench: Bench) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", OUTPUT, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    answer = draft_bench.run(workflow="smoke_workflow")
    ((name, content),) = scope["contents"](answer)
    assert (name, content[:4]) == ("smoke_00001_.png", b"\x89PNG")


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if f"]({page})" not in index} == {"README.md"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_linked_file_exists(name: str) -> None:
    document = ROOT / name
    text = document.read_text(encoding="utf-8")
    pictures = [(picture, "") for picture in re.findall(r'src(?:set)?="([^"]+)"', text)]
    for target, anchor in [*re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text), *pictures]:
        linked = document.parent / target if target else document
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(
    "name",
    [
        "test_input.json",
        "examples/workflow_api_format.json",
        "examples/smoke_workflow.json",
        "examples/lighthouse.json",
    ],
)
def test_the_example_workflows_run(draft_bench: Bench, name: str) -> None:
    given = json.loads((ROOT / name).read_text())
    job_input = given.get("input", {"workflow": given})
    check_workflow(job_input["workflow"])
    assert draft_bench.run(**job_input)["status"] == "success"


def test_the_smoke_workflow_runs_on_every_engine(bench: Bench) -> None:
    answer: dict[str, Any] = bench.run(workflow=json.loads((ROOT / "examples" / "smoke_workflow.json").read_text()))
    assert answer["filenames"] == ["smoke_00001_.png"]


def test_no_requirement_is_without_a_range() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-gateway.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.search(r"==\d+(\.\d+)+\.\*|>=[\d.]+,<[\d.]+$", line.partition(";")[0]), line


def test_this_python_is_supported() -> None:
    assert sys.version_info >= (3, 10)


# --- Deployment --------------------------------------------------------------------------------------------


def said() -> str:
    """Every text of the worker's source; where a value is filled in, a zero byte."""
    texts = [(ROOT / "src" / "start.sh").read_text()]
    for file in (ROOT / "src").rglob("*.py"):
        for part in ast.walk(ast.parse(file.read_text())):
            if isinstance(part, ast.JoinedStr):
                texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in part.values))
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                texts.append(part.value)
    return "\n".join(texts)


def test_every_message_in_troubleshooting_is_one_that_the_worker_says() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = [span for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) if span.count(" ") >= 2 and "{" not in span]
    assert len(quoted) >= 15
    known = said()
    assert [span for span in quoted if span not in known] == []


def commands(name: str, program: str) -> list[list[str]]:
    """The arguments of each line of a document's shell blocks that runs a program."""
    blocks = re.findall(r"^ *```sh\n(.*?)```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if program in line]
    return [shlex.split(line.partition(program)[2], comments=True) for line in lines]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_build_command_in_the_documents_is_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "my-workflow.json").write_text("{}")
    for arguments in commands(name, "build.sh"):
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        command = [str(ROOT / "docker" / "build.sh"), *own, "--dry-run", *arguments[len(own) :]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def test_every_deploy_command_in_the_documents_is_one() -> None:
    found = [arguments for name in DOCUMENTS for arguments in commands(name, "examples/deploy.py")]
    assert len(found) >= 2
    for arguments in found:
        assert deploy._parse(arguments).name


@pytest.mark.parametrize(
    ("script", "name"), [("src/start.sh", "docs/deploy.md"), ("legacy/start.sh", "legacy/README.md")]
)
def test_every_variable_of_a_start_script_is_documented(script: str, name: str) -> None:
    read = set(re.findall(r"\$\{([A-Z_]{2,}):?[-=]", (ROOT / script).read_text()))
    told = set(re.findall(r"`([A-Z_]+)`", (ROOT / name).read_text()))
    of_the_image = {"COMFYUI_PATH", "COMFYUI_PYTHON", "JUPYTER", "WORKER_PYTHON", "HF_HOME", "PIP_CACHE_DIR"}
    assert read and read - told - of_the_image == set()


def test_the_hub_asks_for_settings_that_there_are() -> None:
    hub = json.loads((ROOT / ".runpod" / "hub.json").read_text())
    known = {variable(setting): setting for setting in fields(Settings)}
    keys = [entry["key"] for entry in hub["config"]["env"]]
    assert set(keys) - known.keys() == {"RUNPOD_INIT_TIMEOUT"}
    assert {"title", "description", "type", "category", "config"} <= hub.keys()
    assert min(map(float, hub["config"]["allowedCudaVersions"])) == 13.0, "what the default image needs"
    for preset in hub["config"]["presets"]:
        given = {name: format_value(value) for name, value in preset["defaults"].items()}
        shipped_manifest().expand(read_settings(given).models)
        assert given.keys() <= set(keys)
    (test,) = json.loads((ROOT / ".runpod" / "hub-tests.json").read_text())["tests"]
    read_job({"id": "hub", "input": test["input"]}, lambda name: stored_workflow(name, Settings()))
    assert (ROOT / ".runpod" / "handler.py").resolve() == ROOT / "serverless_worker.py"
    assert (ROOT / "Dockerfile").resolve() == ROOT / "docker" / "Dockerfile"
