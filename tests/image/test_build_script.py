"""docker/build.sh, with a Docker engine that is a stub."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..scripts import REPOSITORY, Stubs


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "stubs")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with the script in it, tagged v1.2.0."""
    folder = tmp_path / "checkout"
    (folder / "docker").mkdir(parents=True)
    shutil.copy(REPOSITORY / "docker" / "build.sh", folder / "docker")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "v1.2.0"]):
        subprocess.run([*git, *command], check=True)
    return folder


def build(stubs: Stubs, checkout: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return stubs.run(checkout / "docker" / "build.sh", *arguments, **more)


def logged_in(tmp_path: Path, registry: str) -> str:
    (tmp_path / "config.json").write_text(f'{{"auths": {{"{registry}": {{"auth": "eDp5"}}}}}}')
    return str(tmp_path)


def test_it_builds_tries_and_names_the_image_by_the_git_version(stubs: Stubs, checkout: Path) -> None:
    stubs.add("docker")
    done = build(stubs, checkout)
    assert (done.returncode, done.stdout) == (0, "comfyui-worker:v1.2.0-cu130\n")
    built, tried = stubs.calls[-2:]
    assert built.startswith("docker buildx build --load --provenance=false --file ")
    assert "--target serverless --platform linux/amd64 --tag comfyui-worker:v1.2.0-cu130" in built
    assert "TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130" in built
    assert "--build-arg VERSION=v1.2.0" in built
    assert tried.startswith("docker run --rm --platform linux/amd64 --env MODE_TO_RUN=test --env COMFYUI_ARGS=--cpu ")
    assert "--test_input examples/smoke_workflow.json" in tried
    assert not [call for call in stubs.calls if call.startswith("docker push")]


def test_variants_targets_models_and_what_follows_two_dashes_reach_the_builder(stubs: Stubs, checkout: Path) -> None:
    stubs.add("docker")
    (checkout / ".secrets").write_text("HF_TOKEN=hf_x\n")
    arguments = ["--image", "you/w", "--variant", "cu130", "--target", "models", "--models", "flux1-dev-fp8"]
    done = build(stubs, checkout, *arguments, "--custom-nodes", "", "--", "--no-cache")
    assert done.stdout == "you/w:v1.2.0-cu130-models\n"
    (built,) = [call for call in stubs.calls if "buildx build" in call]
    assert "TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130" in built
    assert "--build-arg MODELS=flux1-dev-fp8 " in built
    assert f"--secret id=secrets,src={checkout}/.secrets" in built
    assert "CUSTOM_NODES= " in built
    assert built.endswith(f"--no-cache {checkout}")
    assert "hf_x" not in done.stdout + done.stderr


def test_workflows_are_locked_before_the_build_and_taken_by_its_comfyui_after_it(
    stubs: Stubs, checkout: Path, tmp_path: Path
) -> None:
    stubs.add("docker")
    stubs.add("python3", "echo A-Pack,b-pack")
    flow = tmp_path / "my flow.json"
    flow.write_text("{}")
    done = build(stubs, checkout, "--workflow", str(flow), "--with-models", "--custom-nodes", "extras")
    assert (done.returncode, done.stdout) == (0, "comfyui-worker:v1.2.0-cu130-models\n"), done.stderr
    calls = [call for call in stubs.calls if call.split()[1] in ("-m", "buildx", "run") and "version" not in call]
    locked, built, tried, checked = calls
    assert locked == (
        f"python3 -m src.workflow needs --lock --write {checkout}/docker/custom_nodes.lock --write-models "
        f"{checkout}/docker/models.json {flow}"
    )
    assert "CUSTOM_NODES=extras,A-Pack,b-pack" in built
    assert "--target models" in built
    assert "MODELS=workflow" in built
    assert "smoke_workflow" in tried
    assert f"--volume {flow}:/tmp/workflows/0/my flow.json:ro" in checked
    assert checked.endswith("-m src.workflow check /tmp/workflows/0/my flow.json")


def test_what_cannot_be_locked_or_is_not_taken_ends_it(stubs: Stubs, checkout: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow.json"
    flow.write_text("{}")
    stubs.add("docker")
    stubs.add("python3", "exit 1")
    done = build(stubs, checkout, "--workflow", str(flow))
    assert (done.returncode, done.stdout) == (1, "")
    assert "could be locked; nothing was built" in done.stderr
    assert not [call for call in stubs.calls if "buildx build" in call]
    stubs.add("python3", "echo a-pack")
    stubs.add("docker", '[[ $* != *"src.workflow check"* ]]')
    arguments = ("--workflow", str(flow), "--push", "--image", "you/w")
    done = build(stubs, checkout, *arguments, DOCKER_CONFIG=logged_in(tmp_path, "https://index.docker.io/v1/"))
    assert done.returncode == 1
    assert "does not accept the workflow; nothing was pushed" in done.stderr
    done = build(stubs, checkout, "--workflow", str(tmp_path / "nothing.json"))
    assert "there is no file" in done.stderr
    done = build(stubs, checkout, "--with-models")
    assert "--with-models requires --workflow" in done.stderr


def test_a_dry_run_prints_the_commands_and_needs_no_engine(stubs: Stubs, checkout: Path) -> None:
    done = build(stubs, checkout, "--dry-run", "--push", "--image", "you/w")
    assert done.returncode == 0
    assert [line.split()[1:3] for line in done.stderr.splitlines()] == [
        ["docker", "buildx"],
        ["docker", "run"],
        ["docker", "push"],
    ]


def test_it_pushes_what_passed(stubs: Stubs, checkout: Path, tmp_path: Path) -> None:
    stubs.add("docker")
    done = build(
        stubs, checkout, "--push", "--image", "you/w", DOCKER_CONFIG=logged_in(tmp_path, "https://index.docker.io/v1/")
    )
    assert done.returncode == 0, done.stderr
    assert stubs.calls[-1] == "docker push you/w:v1.2.0-cu130"


def test_what_fails_its_smoke_test_is_not_pushed(stubs: Stubs, checkout: Path, tmp_path: Path) -> None:
    stubs.add("docker", "[[ $1 != run ]]")
    config = logged_in(tmp_path, "https://index.docker.io/v1/")
    done = build(stubs, checkout, "--push", "--image", "you/w", DOCKER_CONFIG=config)
    assert done.returncode == 1
    assert "its smoke test failed; nothing was pushed" in done.stderr
    assert not [call for call in stubs.calls if call.startswith("docker push")]


def test_a_refused_push_says_so(stubs: Stubs, checkout: Path, tmp_path: Path) -> None:
    stubs.add("docker", "[[ $1 != push ]]")
    done = build(stubs, checkout, "--push", "--image", "ghcr.io/you/w", DOCKER_CONFIG=logged_in(tmp_path, "ghcr.io"))
    assert (done.returncode, "the push of ghcr.io/you/w:v1.2.0-cu130 failed" in done.stderr) == (1, True)


ERRORS = [
    ([], "", "docker not found: install Docker"),
    ([], "[[ $1 != info ]]", "the Docker engine does not respond: start it"),
    ([], "[[ $1 != buildx ]]", "docker has no buildx"),
    (["--push", "--image", "you/w"], "exit 0", "not logged in to docker.io: docker login docker.io"),
    (["--push", "--image", "ghcr.io/you/w"], "exit 0", "not logged in to ghcr.io: docker login ghcr.io"),
    (["--push"], "exit 0", "give the image's owner: --image YOU/comfyui-worker"),
    (["--variant", "cu118"], "exit 0", "--variant must be cu130, cu128 or cpu, not 'cu118'"),
    (["--target", "sls"], "exit 0", "--target must be serverless, models or pod, not 'sls'"),
    (["--target", "models"], "exit 0", "--target models needs --models SET,…"),
    (["--models", "flux1-dev"], "exit 0", "--models requires --target models"),
    (["--builder", "kaniko"], "exit 0", "--builder must be docker or buildah, not 'kaniko'"),
    (["--builder", "buildah"], "exit 0", "buildah not found: apt-get install buildah"),
    (["--image"], "exit 0", "--image needs a value"),
    (["--frobnicate"], "exit 0", "there is no option --frobnicate"),
    (["--secrets", "/nowhere"], "exit 0", "there is no file /nowhere"),
]


@pytest.mark.parametrize(("arguments", "docker", "told"), ERRORS, ids=[told for _, _, told in ERRORS])
def test_what_will_not_work_is_said_before_anything_is_built(
    stubs: Stubs, checkout: Path, tmp_path: Path, arguments: list[str], docker: str, told: str
) -> None:
    path = f"{stubs.folder}:{tools(tmp_path)}"  # without the docker and buildah of this machine
    if docker:
        stubs.add("docker", docker)
    done = build(stubs, checkout, *arguments, PATH=path, DOCKER_CONFIG=str(tmp_path))
    assert done.returncode == 1
    assert told in done.stderr
    assert not [call for call in stubs.calls if "build --load" in call]


def tools(tmp_path: Path) -> Path:
    """The few programs that the script uses."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "env", "git", "grep"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def test_changes_that_are_not_committed_are_not_pushed(stubs: Stubs, checkout: Path, tmp_path: Path) -> None:
    stubs.add("docker")
    config = logged_in(tmp_path, "https://index.docker.io/v1/")
    new = checkout / "docker" / "models.json"
    new.write_text("{}")
    done = build(stubs, checkout, "--push", "--image", "you/w", DOCKER_CONFIG=config)
    assert (done.returncode, "there are modified or uncommitted files" in done.stderr) == (1, True)
    new.unlink()
    with (checkout / "docker" / "build.sh").open("a") as script:
        script.write("\n")
    done = build(stubs, checkout, "--push", "--image", "you/w", DOCKER_CONFIG=config)
    assert (done.returncode, "there are modified or uncommitted files" in done.stderr) == (1, True)
    assert build(stubs, checkout).stdout == "comfyui-worker:v1.2.0-dirty-cu130\n"


def test_without_git_a_tag_has_to_be_given(stubs: Stubs, checkout: Path, tmp_path: Path) -> None:
    stubs.add("docker")
    shutil.rmtree(checkout / ".git")
    arguments = ["--push", "--image", "you/w"]
    config = logged_in(tmp_path, "https://index.docker.io/v1/")
    done = build(stubs, checkout, *arguments, DOCKER_CONFIG=config)
    assert (done.returncode, "or give --tag" in done.stderr) == (1, True)
    assert build(stubs, checkout, *arguments, "--tag", "v9", DOCKER_CONFIG=config).stdout == "you/w:v9\n"


def test_buildah_does_the_same_without_an_engine(stubs: Stubs, checkout: Path) -> None:
    stubs.add("buildah", "[[ $1 != from ]] || echo working-container")
    done = build(stubs, checkout, "--builder", "buildah")
    assert done.returncode == 0, done.stderr
    assert [call.split()[1] for call in stubs.calls] == ["build", "from", "run", "rm"]
    assert "working-container -- /worker/src/start.sh --test_input" in stubs.calls[2]
    stubs.add("buildah", "[[ $1 != from ]] || echo working-container; [[ $1 != run ]]")
    done = build(stubs, checkout, "--builder", "buildah")
    assert (done.returncode, "its smoke test failed" in done.stderr) == (1, True)
    assert stubs.calls[-1] == "buildah rm working-container"
