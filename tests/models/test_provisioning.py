"""Models over the whole worker: fetched while ComfyUI boots, found wherever they lie, cured when a job misses one."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src.errors import UnknownModelSet
from src.job import handler as job_handler
from src.job.handler import Worker
from src.models.provisioning import ModelProvisioner, model_names
from src.settings import Settings, read_settings

from .. import editor_files, workflows
from ..conftest import REAL_ARGS, Bench, booted, installation, settings_for
from ..loopback_queue import serving
from ..model_server import ModelServer, entry, model_server, weights
from ..tiny_models import make_models
from ..worker_process import ROOT, running
from .test_fetch import files_of

LONG = 120.0  # a hang limit, no measure
ENCODER = "tiny_clip_l.safetensors"
TINY = {"diffusion_models": "tiny_sd3", "text_encoders": "tiny_clip_l", "vae": "tiny_taesd"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of the tiny models, by file name."""
    root = tmp_path_factory.mktemp("tiny")
    make_models(root)
    return {
        f"{name}.safetensors": (root / folder / f"{name}.safetensors").read_bytes() for folder, name in TINY.items()
    }


@pytest.fixture
def server(tiny: dict[str, bytes]) -> Iterator[ModelServer]:
    with model_server() as served:
        served.files = dict(tiny)
        yield served


def write_manifest(folder: Path, server: ModelServer, **changes: Any) -> Path:
    """A manifest of the tiny models and their set, in a file."""
    entries = [
        entry(name, server.files[file], {"url": f"{server.url}/files/{file}"}, folder=kind, **changes)
        for kind, name in TINY.items()
        for file in [f"{name}.safetensors"]
    ]
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"models": entries, "sets": {"tiny": list(TINY.values())}}))
    return manifest


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


def settings_of(server: ModelServer, volume: Path, **changes: Any) -> Settings:
    """Of a worker whose models are on that volume and come from that server."""
    given = {
        "models_dir": str(volume),
        "models_manifest": str(write_manifest(volume.parent, server)),
        "trusted_hosts": (server.host,),
        "download_models": True,
        "job_timeout": LONG,
        **changes,
    }
    return settings_for("real", **given)


# --- What a worker is told of ----------------------------------------------------------------------------


def test_an_unknown_set_ends_the_start_with_the_nearest_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelSet, match="no set or model 'flux1dev'; similar names: flux1-dev"):
        ModelProvisioner.make(read_settings({"MODELS": "flux1dev"}), tmp_path)


def test_names_of_models_are_read_from_a_workflow() -> None:
    workflow = {**workflows.flux(), "99": {"class_type": "X", "inputs": {"text": "a cat", "x": ["1", 0], "n": 5}}}
    assert list(model_names(workflow)) == [
        *("ae.safetensors", "t5xxl_fp16.safetensors", "clip_l.safetensors", "flux1-dev.safetensors"),
    ]
    assert list(model_names({"1": "nonsense", "2": {"inputs": None}})) == []


def test_begin_fetches_what_models_and_the_warm_up_name(server: ModelServer, volume: Path, tmp_path: Path) -> None:
    settings = settings_of(server, volume, models=("tiny_taesd",))
    models = ModelProvisioner.make(settings, tmp_path)
    models.start(workflows.generative())
    models.wait()
    assert files_of(volume) == {"tiny_sd3.safetensors", "tiny_clip_l.safetensors", "tiny_taesd.safetensors"}
    server.requests.clear()
    again = ModelProvisioner.make(settings, tmp_path)
    again.start(workflows.generative())
    again.wait()
    assert server.requests == []


def test_without_download_models_nothing_is_fetched_and_the_log_says_what_is_missing(
    server: ModelServer, volume: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = ModelProvisioner.make(settings_of(server, volume, models=("tiny",), download_models=False), tmp_path)
    models.start()
    models.wait()
    assert server.requests == []
    assert "diffusion_models/tiny_sd3.safetensors" in caplog.text
    assert "DOWNLOAD_MODELS=true" in caplog.text


def test_a_worker_that_ends_does_not_wait_for_its_models(server: ModelServer, volume: Path, tmp_path: Path) -> None:
    server.pace = 0.2
    models = ModelProvisioner.make(settings_of(server, volume, models=("tiny",)), tmp_path)
    models.start()
    time.sleep(0.5)
    started = time.monotonic()
    with models:
        pass
    assert time.monotonic() - started < 10


def test_a_mirror_of_the_hub_that_the_operator_names_is_trusted(volume: Path, tmp_path: Path) -> None:
    with model_server(a=weights(5000)) as hub:
        manifest = tmp_path / "manifest.json"
        source = {"repository": "org/repo", "path": "a.safetensors"}
        manifest.write_text(json.dumps({"models": [entry("a", weights(5000), source)]}))
        given = {
            "DOWNLOAD_MODELS": "1", "MODELS": "a", "MODELS_DIR": str(volume), "MODELS_MANIFEST": str(manifest),
            "HF_ENDPOINT": hub.url, "TRUSTED_HOSTS": hub.host.replace("127.0.0.1", "localhost"),
        }  # fmt: skip
        models = ModelProvisioner.make(read_settings(given), tmp_path)
        with models:
            models.start()
            models.wait()
    assert files_of(volume) == {"a.safetensors"}


# --- Cure, on a real ComfyUI -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_server(tiny: dict[str, bytes]) -> Iterator[ModelServer]:
    with model_server() as served:
        served.files = dict(tiny)
        yield served


@pytest.fixture(scope="module")
def real(shared_server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Path]]:
    """A booted real ComfyUI, and the volume where its models are to be: only the text encoder is there."""
    installation("real")
    volume = tmp_path_factory.mktemp("real") / "volume"
    make_models(volume)
    with booted("real", settings_of(shared_server, volume)) as bench:
        yield bench, volume


@pytest.fixture
def empty(real: tuple[Bench, Path], shared_server: ModelServer, tiny: dict[str, bytes]) -> tuple[Bench, Path]:
    """The same with a volume as it was, and a server that has no faults."""
    bench, volume = real
    for file in volume.rglob("*"):  # but no folder: ComfyUI 0.3.64 cannot bear that one goes
        if file.is_file() and file.name != ENCODER:
            file.unlink()
    shared_server.files, shared_server.requests, shared_server.pace = dict(tiny), [], 0.0
    time.sleep(0.02)  # ComfyUI looks at the time of folders
    return bench, volume


def with_settings(bench: Bench, **changes: Any) -> Bench:
    """The same engine with a worker of other settings."""
    settings = replace(bench.worker.runner.settings, **changes)
    models = ModelProvisioner.make(settings, bench.engine.process.installation.directory)
    return Bench(bench.name, Worker(replace(bench.worker.runner, settings=settings, models=models)))


def test_a_job_that_misses_models_is_cured_and_answered(empty: tuple[Bench, Path], shared_server: ModelServer) -> None:
    bench, volume = empty
    answer = bench.run(workflow=workflows.generative())
    assert answer["status"] == "success", answer
    assert files_of(volume) == {"tiny_sd3.safetensors", "tiny_clip_l.safetensors", "tiny_taesd.safetensors"}
    shared_server.requests.clear()
    assert bench.run(workflow=workflows.generative(), seed=5)["status"] == "success"
    assert shared_server.requests == []


def test_a_model_that_a_job_puts_in_is_cured_too(empty: tuple[Bench, Path]) -> None:
    bench, _ = empty
    workflow = workflows.generative()
    workflow["7"]["inputs"]["vae_name"] = "nothing.safetensors"
    overrides = {"7": {"inputs": {"vae_name": "tiny_taesd.safetensors"}}}
    answer = bench.run(workflow=workflow, overrides=overrides)
    assert answer["status"] == "success", answer


def test_the_models_that_a_saved_workflow_or_the_job_says_the_urls_of_are_fetched(
    empty: tuple[Bench, Path], shared_server: ModelServer
) -> None:
    """With nothing else configured but the switch; the next worker fetches nothing."""
    bench, volume = empty
    (volume / "text_encoders" / ENCODER).unlink()
    time.sleep(0.02)
    redirected = shared_server.host.replace("127.0.0.1", "localhost")
    worker = with_settings(bench, models_manifest="", hf_endpoint=shared_server.url, trusted_hosts=(redirected,))
    url = "https://huggingface.co/tiny/models/resolve/main/{}?download=true"
    saved = editor_files.tiny_generative()
    for node in saved["nodes"]:
        for folder, name in TINY.items():
            file = f"{name}.safetensors"
            if file in node.get("widgets_values", ()) and folder != "vae":
                entry = {"name": file, "url": url.format(file), "directory": folder}
                node["properties"]["models"] = [entry]
    vae = {"folder": "vae", "name": "tiny_taesd.safetensors", "url": url.format("tiny_taesd.safetensors")}
    refused = worker.run(workflow=saved)
    assert "DOWNLOAD_MODELS" not in refused["error"]
    assert refused["error_code"] == "missing_model", refused
    assert {"name": "tiny_taesd.safetensors", "folder": "vae"} in refused["missing_models"]
    told = worker.run(workflow=saved, action="validate")["needs"]["models"]
    assert {(model["file"], model["origin"], model["is_there"]) for model in told} >= {
        ("tiny_sd3.safetensors", "file", False)
    }
    wrong = worker.run(workflow=saved, models=[{**vae, "sha256": "0" * 64}])
    assert wrong["error_code"] == "model_corrupt", wrong
    answer = worker.run(workflow=saved, models=[vae])
    assert answer["status"] == "success", answer
    shared_server.requests.clear()
    assert worker.run(workflow=saved, models=[vae], seed=3)["status"] == "success"
    assert worker.run(workflow=saved, seed=4)["status"] == "success"
    assert shared_server.requests == []


def test_nothing_is_fetched_for_a_job_that_cannot_run_anyway(
    empty: tuple[Bench, Path], shared_server: ModelServer
) -> None:
    bench, _ = empty
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = -3
    answer = bench.run(workflow=workflow)
    assert "steps must be at least 1" in answer["error"]
    assert shared_server.requests == []


def test_validate_counts_what_would_be_fetched_as_there(empty: tuple[Bench, Path]) -> None:
    bench, _ = empty
    assert bench.run(workflow=workflows.generative(), action="validate")["valid"] is True
    answer = with_settings(bench, download_models=False).run(workflow=workflows.generative(), action="validate")
    assert answer["valid"] is False
    assert any(
        "tiny_sd3.safetensors for models/diffusion_models is available at" in str(p) for p in answer["problems"]
    )


def test_two_jobs_that_miss_the_same_model_wait_for_one_fetch(
    empty: tuple[Bench, Path], shared_server: ModelServer
) -> None:
    bench, _ = empty
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(
            target=lambda seed=seed: answers.append(bench.run(workflow=workflows.generative(), seed=seed))
        )
        for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert [answer["status"] for answer in answers] == ["success"] * 2, answers
    sent = [line for line in shared_server.data_requests() if "tiny_sd3" in line]
    assert len(sent) == len(set(sent))


def test_without_download_models_the_error_names_the_set_the_command_and_where_we_looked(
    empty: tuple[Bench, Path],
) -> None:
    bench, volume = empty
    answer = with_settings(bench, download_models=False).run(workflow=workflows.generative())
    assert (answer["error_type"], answer["error_code"]) == ("validation", "missing_model")
    for said in (
        "comes with the set tiny\n",
        "set DOWNLOAD_MODELS=true and MODELS, or run `python -m src.models fetch tiny_sd3 tiny_taesd`",
        "/runpod-volume/models",
        "MODELS_DIR",
    ):
        assert said in answer["error"], answer["error"]
    missing = {(model["name"], model["folder"], model["model"]) for model in answer["missing_models"]}
    assert ("tiny_sd3.safetensors", "diffusion_models", "tiny_sd3") in missing
    assert files_of(volume) == {ENCODER}
    assert str(volume) not in str(answer)


def test_a_model_that_nobody_knows_is_told_with_the_nearest_names(
    empty: tuple[Bench, Path], shared_server: ModelServer
) -> None:
    bench, _ = empty
    assert bench.run(workflow=workflows.generative())["status"] == "success"
    shared_server.requests.clear()
    workflow = workflows.generative()
    workflow["1"]["inputs"]["unet_name"] = "tiny_sd4.safetensors"
    answer = bench.run(workflow=workflow)
    assert answer["error_code"] == "missing_model"
    assert "similar names there: 'tiny_sd3.safetensors'" in answer["error"]
    assert shared_server.requests == []


def test_a_name_with_a_folder_of_its_own_is_not_cured(empty: tuple[Bench, Path], shared_server: ModelServer) -> None:
    bench, _ = empty
    workflow = workflows.generative()
    for name, code in (("../tiny_sd3.safetensors", "invalid_workflow"), ("my/tiny_sd3.safetensors", "missing_model")):
        workflow["1"]["inputs"]["unet_name"] = name
        assert bench.run(workflow=workflow)["error_code"] == code
    assert not [line for line in shared_server.requests if "sd3" in line]


def test_a_name_as_windows_writes_it_is_found_where_it_was_put_later_and_where_it_is_fetched_to(
    empty: tuple[Bench, Path], tiny: dict[str, bytes], shared_server: ModelServer, tmp_path: Path
) -> None:
    bench, volume = empty
    workflow = workflows.generative()
    assert bench.run(workflow=workflow)["status"] == "success"
    folder = volume / "diffusion_models" / "later"
    folder.mkdir(exist_ok=True)
    (folder / "tiny.safetensors").write_bytes(tiny["tiny_sd3.safetensors"])
    workflow["1"]["inputs"]["unet_name"] = "later\\tiny.safetensors"
    answer = bench.run(workflow=workflow, seed=7)
    assert answer["status"] == "success", answer
    assert "node 1 (UNETLoader): unet_name was read as 'later/tiny.safetensors'" in answer["warnings"][0]
    assert bench.run(workflow=workflow, action="validate")["valid"] is True
    (volume / "loras" / "later").mkdir(parents=True, exist_ok=True)
    (volume / "loras" / "later" / "style.safetensors").write_bytes(tiny["tiny_taesd.safetensors"])
    answer = bench.run(workflow=workflow, loras=[{"name": "later\\style.safetensors"}])
    assert answer["status"] == "success", answer
    assert any("lora_name was read as 'later/style.safetensors'" in line for line in answer["warnings"])

    source = {"url": f"{shared_server.url}/files/tiny_taesd.safetensors"}
    known = entry("own", tiny["tiny_taesd.safetensors"], source, folder="vae/mine")
    manifest = tmp_path / "own.json"
    manifest.write_text(json.dumps({"models": [{**known, "file": "own.safetensors"}]}))
    workflow["7"]["inputs"]["vae_name"] = "mine\\own.safetensors"
    answer = with_settings(bench, models_manifest=str(manifest)).run(workflow=workflow, seed=8)
    assert answer["status"] == "success", answer
    assert (volume / "vae" / "mine" / "own.safetensors").is_file()
    assert any("vae_name was read as 'mine/own.safetensors'" in line for line in answer["warnings"])


def test_a_cure_that_fails_says_why_and_the_next_job_tries_again(
    empty: tuple[Bench, Path], shared_server: ModelServer, tiny: dict[str, bytes]
) -> None:
    bench, volume = empty
    shared_server.files["tiny_taesd.safetensors"] = tiny["tiny_taesd.safetensors"][:-1] + b"x"
    answer = bench.run(workflow=workflows.generative())
    assert (answer["error_type"], answer["error_code"]) == ("internal", "model_corrupt")
    assert "tiny_taesd.safetensors is not the expected file" in answer["error"]
    assert str(volume) not in str(answer)
    shared_server.files = dict(tiny)
    assert bench.run(workflow=workflows.generative())["status"] == "success"


def _places(volume: Path) -> list[tuple[Path, str]]:
    return [(volume / folder, name) for folder, name in TINY.items() if f"{name}.safetensors" != ENCODER]


def test_a_cure_ends_with_the_jobs_time_and_the_next_job_goes_on(
    empty: tuple[Bench, Path], shared_server: ModelServer, tiny: dict[str, bytes]
) -> None:
    bench, volume = empty
    shared_server.pace = 0.2  # some ten seconds
    answer = with_settings(bench, job_timeout=4.0).run(workflow=workflows.generative())
    assert (answer["error_type"], answer["error_code"]) == ("timeout", "job_timeout")
    assert "send the job again" in answer["error"]
    left = [folder / f"{name}.safetensors.partial" for folder, name in _places(volume)]
    assert any(path.exists() for path in left)
    shared_server.pace, before = 0.0, shared_server.sent
    assert bench.run(workflow=workflows.generative())["status"] == "success"
    assert shared_server.sent - before < sum(len(tiny[f"{name}.safetensors"]) for _, name in _places(volume))


def test_a_cancelled_job_ends_its_cure(empty: tuple[Bench, Path], shared_server: ModelServer) -> None:
    bench, _ = empty
    shared_server.pace, stop = 0.2, threading.Event()
    threading.Timer(1.5, stop.set).start()
    job_handler.set_worker(bench.worker)
    started = time.monotonic()
    job = {"id": "x", "input": {"workflow": workflows.generative()}}
    answer = job_handler.answer_job(job, stop)
    assert answer["error_code"] == "cancelled"
    assert time.monotonic() - started < 30
    shared_server.pace = 0.0
    assert bench.run(workflow=workflows.still())["status"] == "success"


def test_a_diffusion_model_works_from_the_folder_of_checkpoints(
    empty: tuple[Bench, Path], shared_server: ModelServer, tiny: dict[str, bytes]
) -> None:
    bench, volume = empty
    (volume / "checkpoints").mkdir(parents=True, exist_ok=True)
    (volume / "checkpoints" / "tiny_sd3.safetensors").write_bytes(tiny["tiny_sd3.safetensors"])
    assert bench.run(workflow=workflows.generative())["status"] == "success"
    assert not [line for line in shared_server.requests if "sd3" in line]


@pytest.mark.parametrize("names", [("unet", "clip"), ("diffusion_models", "text_encoders")])
def test_both_names_of_renamed_folders_work(
    empty: tuple[Bench, Path], tiny: dict[str, bytes], names: tuple[str, str]
) -> None:
    bench, volume = empty
    for folder, name in zip((names[0], "vae"), ("tiny_sd3", "tiny_taesd"), strict=True):
        (volume / folder).mkdir(exist_ok=True)
        (volume / folder / f"{name}.safetensors").write_bytes(tiny[f"{name}.safetensors"])
    encoder = next(volume.rglob(ENCODER))
    (volume / names[1]).mkdir(exist_ok=True)
    encoder.rename(volume / names[1] / ENCODER)
    own = with_settings(bench, download_models=False)
    assert own.run(workflow=workflows.generative(), seed=int(time.time()))["status"] == "success"


# --- The worker as a whole -------------------------------------------------------------------------------


def draft_checkout(folder: Path) -> Path:
    """A checkout that takes a flag for model paths, and draws drafts."""
    checkout = folder / "ComfyUI"
    (checkout / "comfy").mkdir(parents=True)
    (checkout / "comfy" / "cli_args.py").write_text('parser.add_argument("--extra-model-paths-config")\n')
    (checkout / "main.py").write_text(
        "import sys, time\n"
        "place = sys.argv.index('--extra-model-paths-config')\n"
        "print(open(sys.argv[place + 1]).read()); del sys.argv[place : place + 2]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\nfrom src.draft.__main__ import main\nmain()\n"
    )
    return checkout


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("name", ["draft", pytest.param("real", marks=pytest.mark.slow)])
def test_a_cold_worker_fetches_boots_warms_up_and_answers_the_first_job(
    tmp_path: Path, server: ModelServer, volume: Path, name: str
) -> None:
    checkout = draft_checkout(tmp_path) if name == "draft" else installation("real").directory
    if name == "real":
        make_models(tmp_path / "whole")
        server.files[ENCODER] = (tmp_path / "whole" / "text_encoders" / ENCODER).read_bytes()
    warm_up = tmp_path / "warm.json"
    warm_up.write_text(json.dumps({"input": {"workflow": workflows.generative(), "seed": 7}}))
    environment = {
        "COMFYUI_PATH": str(checkout),
        "COMFYUI_ARGS": "" if name == "draft" else f"{REAL_ARGS} --disable-all-custom-nodes",
        "DOWNLOAD_MODELS": "true",
        "MODELS": "tiny",
        "MODELS_DIR": str(volume),
        "MODELS_MANIFEST": str(write_manifest(tmp_path, server)),
        "TRUSTED_HOSTS": server.host,
        "WARMUP_WORKFLOW": str(warm_up),
    }
    if name == "draft":
        environment["COMFYUI_PYTHON"] = sys.executable
    with serving() as queue:
        queue.put("first", {"workflow": workflows.generative()})
        with running([], {**queue.environment, **environment}, tmp_path) as worker:
            queue.wait_for(1, LONG)
        assert queue.posted["first"][0]["output"]["status"] == "success", worker.log
    assert files_of(volume) == {*server.files}
    assert "warmed up in" in worker.log
    assert worker.log.index("warmed up in") < worker.log.index("queued prompt", worker.log.index("warmed up in"))
    assert "fetching vae/tiny_taesd.safetensors: 0.0 GB, MIT" in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MODELS": "flux1dev"}, "unknown_model_set: there is no set or model 'flux1dev'"),
        ({"MODELS_MANIFEST": "/nowhere.json"}, "invalid_manifest: MODELS_MANIFEST: there is no file /nowhere.json"),
        ({"R2_ENDPOINT": "https://r2.example.com"}, "these must be too: R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY"),
        ({"DOWNLOAD_MODELS": "perhaps"}, "DOWNLOAD_MODELS must be true or false"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_the_start(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with serving() as queue, running(["--draft"], {**queue.environment, **changes}, tmp_path) as worker:
        assert worker.process.wait(LONG) == 1
        assert said in worker.log
        assert worker.process_tree_ends(10)


def test_a_warm_up_that_cannot_be_used_costs_no_job(tmp_path: Path) -> None:
    for given in ("no-such-workflow", str(tmp_path)):
        with serving() as queue:
            queue.put("one", {"workflow": workflows.still()})
            with running(["--draft"], {**queue.environment, "WARMUP_WORKFLOW": given}, tmp_path) as worker:
                queue.wait_for(1, LONG)
            assert queue.posted["one"][0]["output"]["status"] == "success"
            assert "WARMUP_WORKFLOW cannot be used" in worker.log


def test_a_warm_up_that_fails_costs_no_job(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({**workflows.still(), "2": workflows.node("ImageInvert")}))
    with serving() as queue:
        queue.put("one", {"workflow": workflows.still()})
        with running(["--draft"], {**queue.environment, "WARMUP_WORKFLOW": str(bad)}, tmp_path) as worker:
            queue.wait_for(1, LONG)
        assert queue.posted["one"][0]["output"]["status"] == "success"
        assert "the warm-up failed: invalid_workflow" in worker.log


def test_models_that_cannot_be_fetched_cost_only_the_jobs_that_need_them(
    tmp_path: Path, server: ModelServer, volume: Path
) -> None:
    del server.files["tiny_taesd.safetensors"]
    server.files["tiny_taesd.safetensors"] = weights(10)
    manifest = write_manifest(tmp_path, server)
    server.files["tiny_taesd.safetensors"] = weights(11)
    environment = {
        "COMFYUI_PATH": str(draft_checkout(tmp_path)),
        "COMFYUI_PYTHON": sys.executable,
        "DOWNLOAD_MODELS": "true",
        "MODELS": "tiny",
        "MODELS_DIR": str(volume),
        "MODELS_MANIFEST": str(manifest),
        "TRUSTED_HOSTS": server.host,
    }
    with serving() as queue:
        queue.put("one", {"workflow": workflows.still()})
        with running([], {**queue.environment, **environment}, tmp_path) as worker:
            queue.wait_for(1, LONG)
        assert queue.posted["one"][0]["output"]["status"] == "success"
    assert "model_corrupt: tiny_taesd.safetensors is not the expected file" in worker.log
    assert files_of(volume) == {"tiny_sd3.safetensors", "tiny_clip_l.safetensors"}
