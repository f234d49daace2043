"""The image's recipe: what must hold whatever is changed in it. It is built for real by hand (docker/BUILD_COMMANDS.md)."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from src.settings import Settings, variable

from ..conftest import REAL

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
SCRIPTS = [
    file
    for folder in ("src", "docker", "legacy", ".ci")
    for file in sorted((REPOSITORY / folder).iterdir())
    if file.suffix == ".sh" or file.name == "run"
]
IMAGE_VARIABLES = {"WORKER_PYTHON"}  # of the start script: docs/deploy.md
OTHERS_VARIABLES = {
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
}


def script(name: str) -> ModuleType:
    """A script of the build as a module: its folder has the name of a package that moto needs."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docker" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sources, prove = script("sources"), script("prove")


def ran(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=300, **options)


@dataclass(frozen=True)
class Instruction:
    name: str
    rest: str
    stage: str

    @property
    def words(self) -> list[str]:
        return self.rest.split()


def instructions() -> list[Instruction]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    stage, found = "", []
    for logical in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not logical.strip():
            continue
        name, rest = logical.split(None, 1)
        if name == "FROM":
            stage = rest.split()[-1]
        found.append(Instruction(name, rest, stage))
    return found


RECIPE = instructions()


def of(name: str, stage: str | None = None) -> list[Instruction]:
    return [step for step in RECIPE if step.name == name and stage in (None, step.stage)]


def in_context(path: str) -> bool:
    """Whether the builder gets it, by .dockerignore, whose last rule that fits decides."""
    fits = False
    for rule in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.lstrip("!").rstrip("/")
            whole = pattern.removeprefix("**/")
            names = (
                path.split("/") if pattern.startswith("**/") else ["/".join(path.split("/")[: whole.count("/") + 1])]
            )
            if any(fnmatch.fnmatch(name, whole) for name in names):
                fits = rule.startswith("!")
    return fits


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    found = ran("hadolint", DOCKERFILE)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_the_linter_finds_nothing_in_a_script(file: Path) -> None:
    found = ran("shellcheck", file)
    assert (found.returncode, found.stdout) == (0, "")
    assert os.access(file, os.X_OK)
    assert "set -euo pipefail" in file.read_text()


def test_what_the_image_is_made_of_is_pinned() -> None:
    defaults: dict[str, set[str]] = {}
    for argument in of("ARG"):
        name, _, default = argument.rest.partition("=")
        if default:
            defaults.setdefault(name, set()).add(default)
    assert all(len(values) == 1 for values in defaults.values()), "the same argument, with two defaults"
    only = {name: min(values) for name, values in defaults.items()}
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", only["BASE_IMAGE"])
    assert re.fullmatch(r"v\d+\.\d+\.\d+", only["COMFYUI_VERSION"])
    assert re.fullmatch(r"[0-9a-f]{40}", only["COMFYUI_COMMIT"])
    for package in ("TORCH", "TORCHVISION", "TORCHAUDIO"):
        assert re.fullmatch(r"\d+\.\d+\.\d+", only[f"{package}_VERSION"])
    stages = {step.stage for step in of("FROM")}
    assert all(step.words[0] in {"${BASE_IMAGE}", *stages} for step in of("FROM"))
    for step in of("RUN"):
        for install in re.findall(r"pip install [^&]*", step.rest):
            assert "-c " in install or "==" in install, install
    assert "curl" not in DOCKERFILE.read_text() and "wget" not in DOCKERFILE.read_text()


def test_no_secret_is_an_argument_or_a_variable_and_what_needs_one_mounts_it() -> None:
    secret = re.compile(r"TOKEN|SECRET|PASSWORD|KEY|CREDENTIAL")
    assert not [step.rest for step in [*of("ARG"), *of("ENV")] if secret.search(step.rest)]
    mounted = [step for step in of("RUN") if "type=secret" in step.rest]
    assert [step.stage for step in mounted] == ["model-files"]
    assert "model-files" not in {step.words[0] for step in of("FROM")}, "nothing is built on the stage that saw it"


def test_everything_that_is_copied_exists_and_reaches_the_builder() -> None:
    copied = [word.rstrip("/") for step in of("COPY") if "--from" not in step.rest for word in step.words[:-1]]
    assert len(copied) > 20
    for path in copied:
        assert path == "docker/models*.json" or (REPOSITORY / path).exists(), path
        assert in_context(path), path
    assert "type=bind" not in DOCKERFILE.read_text(), "buildah does not see when what is mounted has changed"


NOT_SENT = [".secrets", ".git/config", "output/x.png", "ComfyUI/main.py", "tests/conftest.py", "docker/.secrets"]
NOT_SENT += ["src/__pycache__/errors.cpython-312.pyc", "src/models/x.pyc", "legacy/.secrets.mine"]


@pytest.mark.parametrize("path", NOT_SENT)
def test_nothing_else_reaches_the_builder(path: str) -> None:
    assert not in_context(path)


def test_what_apt_leaves_is_removed_in_the_same_layer() -> None:
    installs = [step.rest for step in of("RUN") if "apt-get install" in step.rest]
    assert installs
    for install in installs:
        assert "--no-install-recommends" in install
        assert "rm -rf /var/lib/apt/lists" in install


def test_every_variable_of_the_image_is_a_documented_one() -> None:
    documented = {variable(setting) for setting in fields(Settings)}
    told = (REPOSITORY / "docs" / "deploy.md").read_text()
    for step in of("ENV"):
        for name in re.findall(r"(\w+)=", step.rest):
            assert name in documented | IMAGE_VARIABLES | OTHERS_VARIABLES, name
            assert name in OTHERS_VARIABLES or name in documented or f"`{name}`" in told, name


def test_signals_arrive_and_ports_are_open_on_the_pod_only() -> None:
    entries = {step.stage: json.loads(step.rest) for step in of("ENTRYPOINT")}
    start = "/worker/src/start.sh"
    assert entries == {"comfyui": [start], "pod": ["/usr/bin/tini", "--", start]}
    assert [step.rest for step in of("STOPSIGNAL")] == ["SIGTERM"]
    assert {step.stage for step in of("EXPOSE")} == {"pod"}
    assert RECIPE[-1].stage == "serverless", "the last stage is what a build without --target gives"


def test_layers_are_in_the_order_of_how_rarely_they_change() -> None:
    text = "\n".join(f"{step.name} {step.rest}" for step in RECIPE if step.stage == "comfyui")
    order = [
        "TORCH_VERSION",
        "COPY --from=comfyui-source /comfyui/requirements.txt",
        "COPY --from=comfyui-source /comfyui /comfyui",
        "COPY --from=custom-nodes-source",
        "COPY --from=worker-environment",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    for target in ("serverless", "models", "pod"):
        copies = [step.rest for step in of("COPY", target)]
        last = copies.index("--from=worker /worker /worker")
        assert all(copy.startswith(("--from=proved", "legacy")) for copy in copies[last + 1 :])
    layers = [step.words[0] + step.words[1] for step in of("COPY", "models") if "baked" in step.rest]
    assert layers == [f"--from=model-files/baked/{name}/" for name in [*(f"{n:02}" for n in range(8)), "rest"]]


def test_models_are_fetched_anew_only_when_what_fetches_them_changes() -> None:
    program = (
        "import sys, src.models.__main__, src.models.hub_child; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('src')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    ).stdout.split()
    needed = {str(Path(file).relative_to(REPOSITORY)) for file in loaded} - {"src/models/__main__.py"}
    copied = {word for step in of("COPY", "model-files") for word in step.words[:-1] if word.startswith("src")}
    whole = {"src/launch", "src/models", "src/settings", "src/storage"}
    assert copied == {*whole, "src/extra_model_paths.yaml"} | {
        file for file in needed if not file.startswith(tuple(f"{folder}/" for folder in whole))
    }


# --- What goes in ------------------------------------------------------------------------------------------


def constraints(name: str) -> dict[str, Version]:
    lines = (REPOSITORY / "docker" / "constraints" / name).read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(str(requirement.specifier).startswith("==") for requirement in pinned)
    return {
        requirement.name.lower().replace("_", "-"): Version(str(requirement.specifier)[2:]) for requirement in pinned
    }


def test_the_pinned_versions_of_the_worker_are_in_the_ranges_that_it_declares() -> None:
    pinned = constraints("worker.txt")
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            name = requirement.name.lower().replace("_", "-")
            assert pinned[name] in requirement.specifier, f"docker/lock.sh has to be run again: {line}"


def test_the_default_comfyui_is_resolved_and_leaves_torch_alone() -> None:
    (version,) = {step.rest.partition("=")[2] for step in of("ARG") if step.rest.startswith("COMFYUI_VERSION=")}
    pinned = constraints(f"comfyui/{version}.txt")
    assert not {"torch", "torchvision", "torchaudio"} & pinned.keys()
    assert constraints("jupyter.txt")["jupyterlab"].major >= 4
    assert not {"torch"} & constraints("worker.txt").keys(), "the SDK would import it"


def test_every_custom_node_of_the_lock_says_what_it_is() -> None:
    nodes = sources.read_lock(REPOSITORY / "docker" / "custom_nodes.lock")
    assert {node.group for node in nodes} == {"default", "extras", "identity"}
    for node in nodes:
        assert node.repository.startswith("https://github.com/")
        assert node.why and node.state and node.classes and node.requirements
    assert [node.name for node in sources.select(nodes, "default")] == ["ComfyUI-GGUF"]
    assert sources.select(nodes, "") == []
    with pytest.raises(SystemExit, match="CUSTOM_NODES: unknown: facex; known: ComfyUI-GGUF, "):
        sources.select(nodes, "default,facex")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("commit", "eef22b6", "the commit of A must be 40 hex digits, not 'eef22b6'"),
        ("requirements", ["gguf>=0.13"], r"A needs exact versions \(==\), not gguf>=0.13"),
    ],
)
def test_a_lock_that_pins_nothing_is_refused(tmp_path: Path, field: str, value: object, told: str) -> None:
    entry = {"name": "A", "group": "g", "repository": "r", "commit": "0" * 40, "why": "w", "state": "s", "classes": []}
    lock = tmp_path / "custom_nodes.lock"
    lock.write_text(json.dumps({"custom_nodes": [{**entry, field: value}]}))
    with pytest.raises(SystemExit, match=told):
        sources.read_lock(lock)


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[str, str]:
    """A git repository with one commit, tagged v1; its URL and the commit."""
    folder = tmp_path / "upstream"
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    folder.mkdir()
    subprocess.run([*git, "init", "-q"], check=True)
    (folder / "nodes.py").write_text("x = 1\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run([*git, "tag", "v1"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return folder.as_uri(), commit


def test_sources_come_at_their_commit_compiled_and_without_history(tmp_path: Path, upstream: tuple[str, str]) -> None:
    url, commit = upstream
    sources.clone(url, "v1", commit, tmp_path / "here", "hint")
    assert sorted(file.name for file in (tmp_path / "here").iterdir()) == ["__pycache__", "nodes.py"]


def test_a_tag_that_was_moved_fails_the_build_and_says_what_it_is_now(
    tmp_path: Path, upstream: tuple[str, str]
) -> None:
    url, commit = upstream
    with pytest.raises(SystemExit, match=rf"v1 of file:.* is commit {commit}, not {'0' * 40}. Build with it."):
        sources.clone(url, "v1", "0" * 40, tmp_path / "here", "Build with it.")


def test_what_cannot_be_cloned_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"this failed: git .*fetch"):
        sources.clone((tmp_path / "nowhere").as_uri(), "v1", "0" * 40, tmp_path / "here", "")


def test_the_proof_of_the_build_is_one(tmp_path: Path) -> None:
    """On a ComfyUI without custom nodes; with one that is missing it fails."""
    if isinstance(REAL, str):
        pytest.skip(REAL)
    copy = tmp_path / "ComfyUI"
    (copy / "custom_nodes").mkdir(parents=True)
    for entry in REAL.directory.iterdir():
        if not entry.name.startswith(".") and entry.name != "custom_nodes":
            (copy / entry.name).symlink_to(entry)
    environment = {**os.environ, "COMFYUI_PATH": str(copy), "COMFYUI_PYTHON": REAL.start[0]}
    command = [sys.executable, str(REPOSITORY / "docker" / "prove.py"), str(tmp_path / "proof.json")]
    done = ran(*command, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "proof.json").read_text())["custom_nodes"] == {}
    (copy / "custom_nodes" / "ComfyUI-GGUF").mkdir()
    done = ran(*command, cwd=REPOSITORY, env=environment)
    assert done.returncode == 1
    assert "custom node ComfyUI-GGUF: ComfyUI has no UnetLoaderGGUF" in done.stderr


def test_the_proof_looks_into_the_lock_beside_it() -> None:
    assert prove.LOCK == REPOSITORY / "docker" / "custom_nodes.lock"


def test_baked_models_have_a_layer_each_the_largest_first(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/usr/bin/env bash\n"  # stands for: python -m src.models fetch SET… --folder FOLDER
        'echo "$@" > "$(dirname "$0")/asked"; folder=${!#}\n'
        'mkdir -p "$folder/vae" "$folder/loras"; printf 12345 > "$folder/vae/ae.safetensors"\n'
        'for n in 0 1 2 3 4 5 6 7 8 9; do head -c "10$n" /dev/zero > "$folder/loras/a b$n"; done\n'
    )
    python.chmod(0o755)
    spread, baked = REPOSITORY / "docker" / "spread_models.sh", tmp_path / "baked"
    environment = {**os.environ, "WORKER_PYTHON": str(python)}
    subprocess.run(["bash", str(spread), str(baked), "flux1-dev, upscalers"], env=environment, check=True)
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["-m", "src.models", "fetch", "flux1-dev", "upscalers", "--folder", str(baked / "fetched")]
    found = sorted(str(file.relative_to(baked)) for file in baked.rglob("*") if file.is_file())
    first = [f"{layer:02}/loras/a b{9 - layer}" for layer in range(8)]
    assert found == [*first, "rest/loras/a b0", "rest/loras/a b1", "rest/vae/ae.safetensors"]
    assert {file.stat().st_mtime for file in baked.rglob("*")} == {0.0}, "the same file is the same layer"
    none = ran("bash", spread, tmp_path / "none", "")
    assert none.returncode == 2 and "--build-arg MODELS=SET" in none.stderr
