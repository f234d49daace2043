"""legacy/start.sh: the Pod set-up, with stubs for ComfyUI, JupyterLab and sshd."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ..scripts import REPOSITORY, Stubs

WAITS = "trap 'echo \"$0 was asked to end\"; kill $!; exit 0' TERM; sleep 600 & wait"
HANG = 30.0


class Pod:
    """The script with stubs. `start` it; `out` is what it said."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path
        self.stubs = Stubs(tmp_path / "stubs")
        for name in ("sshd", "jupyter", "python"):
            self.stubs.add(name, WAITS)
        self.stubs.add("ssh-keygen", 'touch "${!#}"')
        (tmp_path / "comfyui").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    def start(self, **more: str) -> None:
        environment = self.stubs.environment(
            WORKSPACE_DIR=str(self.workspace),
            RUN_DIR=str(self.root / "run"),
            COMFYUI_PATH=str(self.root / "comfyui"),
            COMFYUI_PYTHON=str(self.stubs.folder / "python"),
            WORKER_PYTHON=str(self.stubs.folder / "python"),
            JUPYTER=str(self.stubs.folder / "jupyter"),
            PRE_START_HOOK=str(self.root / "pre_start.sh"),
            POST_START_HOOK=str(self.root / "post_start.sh"),
            **more,
        )
        command = [str(REPOSITORY / "legacy" / "start.sh")]
        with (self.root / "out").open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HANG
        while not happened():
            assert time.monotonic() < deadline, f"calls: {self.stubs.calls}, log: {self.log}"
            time.sleep(0.02)

    def wait_for_call(self, start: str, times: int = 1) -> None:
        self.wait_for(lambda: sum(call.startswith(start) for call in self.stubs.calls) >= times)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=HANG)

    @property
    def log(self) -> str:
        log = self.workspace / "logs" / "pod.log"
        return log.read_text() if log.exists() else ""

    def left(self) -> list[int]:
        """Processes that still run one of the stubs."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and str(self.stubs.folder).encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    yield pod
    if pod.process is not None and pod.process.poll() is None:
        pod.end()
    for process in pod.left():
        os.kill(process, signal.SIGKILL)


def test_comfyui_listens_with_what_is_kept_on_the_volume(pod: Pod) -> None:
    pod.start(COMFYUI_ARGS="--cpu --preview-method 'auto x'")
    pod.wait_for_call("python main.py")
    (call,) = [call for call in pod.stubs.calls if call.startswith("python main.py")]
    assert call.startswith("python main.py --listen 0.0.0.0 --port 8188 --disable-auto-launch ")
    for kept in ("input", "output", "user"):
        assert f"--{kept}-directory {pod.workspace}/ComfyUI/{kept}" in call
        assert (pod.workspace / "ComfyUI" / kept).is_dir()
    assert (
        f"--extra-model-paths-config {REPOSITORY}/src/extra_model_paths.yaml {pod.root}/run/custom_nodes.yaml" in call
    )
    assert call.endswith("--cpu --preview-method auto x")
    paths = yaml.safe_load((pod.root / "run" / "custom_nodes.yaml").read_text())["workspace_nodes"]
    assert paths == {"base_path": f"{pod.workspace}/ComfyUI", "custom_nodes": "custom_nodes", "is_default": True}


def test_without_key_and_password_there_is_no_ssh_and_no_jupyter(pod: Pod) -> None:
    pod.start(JUPYTER_PASSWORD="", PUBLIC_KEY="")
    pod.wait_for_call("python main.py")
    assert not [call for call in pod.stubs.calls if call.startswith(("sshd", "jupyter"))]
    pod.wait_for(lambda: "no SSH: PUBLIC_KEY is not set" in pod.log)
    assert "no JupyterLab: JUPYTER_PASSWORD is not set" in pod.log


def test_ssh_takes_the_given_keys_and_nothing_else(pod: Pod) -> None:
    pod.start(PUBLIC_KEY="ssh-ed25519 AAAA one\nssh-ed25519 BBBB two")
    pod.wait_for_call(f"sshd -D -e -f {pod.root}/run/sshd_config")
    keys = pod.root / "run" / "authorized_keys"
    assert keys.read_text() == "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
    assert keys.stat().st_mode & 0o777 == 0o600
    configuration = (pod.root / "run" / "sshd_config").read_text()
    for line in ("AuthenticationMethods publickey", "PasswordAuthentication no", "KbdInteractiveAuthentication no"):
        assert line in configuration.splitlines()
    if Path("/usr/sbin/sshd").exists():
        key = pod.root / "run" / "host_key"
        key.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        subprocess.run(["/usr/sbin/sshd", "-t", "-f", str(pod.root / "run" / "sshd_config")], check=True)


def test_jupyter_gets_its_password_where_no_process_list_shows_it(pod: Pod) -> None:
    pod.stubs.add("jupyter", f'echo "token=$JUPYTER_TOKEN" > "{pod.root}/token"; {WAITS}')
    pod.start(JUPYTER_PASSWORD="hunter2")
    pod.wait_for_call("jupyter lab")
    (call,) = [call for call in pod.stubs.calls if call.startswith("jupyter")]
    assert "--port 8888" in call and f"--ServerApp.root_dir={pod.workspace}" in call
    assert "hunter2" not in call
    pod.wait_for((pod.root / "token").exists)
    assert (pod.root / "token").read_text() == "token=hunter2\n"
    assert "hunter2" not in pod.log


def test_jupyter_takes_pages_from_its_own_address_only(pod: Pod) -> None:
    pod.start(JUPYTER_PASSWORD="hunter2", RUNPOD_POD_ID="abc123", JUPYTER_PORT="8889")
    pod.wait_for_call("jupyter lab")
    (call,) = [call for call in pod.stubs.calls if call.startswith("jupyter")]
    assert call.endswith(" --ServerApp.allow_origin=https://abc123-8889.proxy.runpod.net")


def test_comfyui_gets_no_secret_but_those_that_are_named(pod: Pod) -> None:
    pod.stubs.add("python", f'env > "{pod.root}/seen.new"; mv "{pod.root}/seen.new" "{pod.root}/seen"; {WAITS}')
    secrets = {"JUPYTER_PASSWORD": "hunter2", "R2_SECRET_ACCESS_KEY": "r2", "RUNPOD_API_KEY": "rpa", "MY_PAT": "pat"}
    pod.start(**secrets, HF_TOKEN="hf_1", COMFYUI_PASS_ENV="OTHER,HF_TOKEN", RUNPOD_POD_ID="abc")
    pod.wait_for((pod.root / "seen").exists)
    seen = (pod.root / "seen").read_text().splitlines()
    assert {"HF_TOKEN=hf_1", "RUNPOD_POD_ID=abc"} <= set(seen)
    assert not [line for line in seen if line.partition("=")[0] in secrets]


def test_comfyui_is_started_again_later_each_time(pod: Pod) -> None:
    pod.stubs.add("python", "exit 3")
    pod.start()
    pod.wait_for_call("python main.py", times=3)
    pod.wait_for(lambda: "starting it again in 4 s" in pod.log)
    delays = re.findall(r"ComfyUI ended with 3; starting it again in (\d) s", pod.log)
    assert delays[:3] == ["1", "2", "4"]
    assert pod.end() == 0, "also while it waits"


def test_sigterm_ends_everything(pod: Pod) -> None:
    pod.start(PUBLIC_KEY="ssh-ed25519 AAAA one", JUPYTER_PASSWORD="hunter2")
    for name in ("sshd", "jupyter", "python main.py"):
        pod.wait_for_call(name)
    began = time.monotonic()
    assert pod.end() == 0
    assert time.monotonic() - began < 8
    for name in ("sshd", "jupyter", "python"):
        assert f"{name} was asked to end" in pod.log
    pod.wait_for(lambda: not pod.left())


@pytest.mark.parametrize("when", ["pre_start.sh", "workspace/start_user.sh", "post_start.sh"])
def test_sigterm_is_heard_while_a_hook_runs(pod: Pod, when: str) -> None:
    pod.workspace.mkdir()
    (pod.root / when).write_text(f"touch {pod.root}/runs; exec sleep 600\n")
    pod.start()
    pod.wait_for((pod.root / "runs").exists)
    began = time.monotonic()
    assert pod.end() == 0
    assert time.monotonic() - began < 8


def test_what_does_not_end_is_killed(pod: Pod) -> None:
    pod.stubs.add("jupyter", "trap '' TERM; exec sleep 600")
    pod.start(JUPYTER_PASSWORD="hunter2")
    pod.wait_for_call("jupyter")
    pod.wait_for_call("python main.py")
    assert pod.end() == 0
    pod.wait_for(lambda: not pod.left())


def test_hooks_run_at_their_time_and_may_fail(pod: Pod) -> None:
    hook = f'echo "$0" >> {pod.root}/hooks; cat {pod.root}/stubs/calls >> {pod.root}/hooks 2> /dev/null; exit 9\n'
    (pod.workspace).mkdir()
    for file in (pod.root / "pre_start.sh", pod.workspace / "start_user.sh", pod.root / "post_start.sh"):
        file.write_text(hook)
    pod.start(JUPYTER_PASSWORD="hunter2")
    pod.wait_for(lambda: pod.log.count("ended with 9; going on") == 3)
    hooks = (pod.root / "hooks").read_text()
    assert hooks.index("pre_start.sh") < hooks.index("start_user.sh") < hooks.index("post_start.sh")
    pod.wait_for_call("python main.py")


@pytest.mark.parametrize("yes", ["true", "True", "1", "yes"])
def test_models_are_fetched_to_the_volume_beside_comfyui(pod: Pod, yes: str) -> None:
    pod.start(MODELS="flux1-dev, upscalers", DOWNLOAD_MODELS=yes)
    pod.wait_for_call("python main.py")
    pod.wait_for_call(f"python -m src.models fetch flux1-dev upscalers --folder {pod.workspace}/models")


def test_what_custom_nodes_of_the_volume_need_is_installed_first(pod: Pod) -> None:
    requirements = pod.workspace / "ComfyUI" / "custom_nodes" / "A" / "requirements.txt"
    requirements.parent.mkdir(parents=True)
    requirements.write_text("x\n")
    pod.stubs.add("python", f"[[ $2 != pip ]] || exit 1; {WAITS}")
    pod.start()
    pod.wait_for_call("python main.py")
    assert pod.stubs.calls[0].startswith(f"python -m pip install --quiet -r {requirements}")
    pod.wait_for(lambda: f"{requirements} cannot be installed" in pod.log)


def test_shells_get_the_environment_without_its_secrets(pod: Pod) -> None:
    pod.start(HF_TOKEN="hf_secret", JUPYTER_PASSWORD="hunter2", NOTE='two "lines"\nand $HOME', PUBLIC_KEY="ssh-x")
    pod.wait_for_call("python main.py")
    environment = pod.root / "run" / "environment"
    shell = f'. {environment}; printf %s "$NOTE|$COMFYUI_PATH"'
    shown = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert shown == f'two "lines"\nand $HOME|{pod.root}/comfyui'
    for secret in ("hf_secret", "hunter2", "ssh-x"):
        assert secret not in environment.read_text()


def test_a_workspace_that_cannot_be_written_is_told(pod: Pod) -> None:
    pod.workspace.write_text("a file")
    pod.start()
    assert pod.process is not None
    assert pod.process.wait(timeout=HANG) == 1
    assert f"{pod.workspace} cannot be written: attach a volume there" in (pod.root / "out").read_text()
