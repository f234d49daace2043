"""Where models are looked for, and what ComfyUI and its node packs are told of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.models import places
from src.models.folders import folder_names, folders_for
from src.models.manifest import Model, read_manifest, shipped_manifest
from src.models.places import (
    Places,
    cached_files,
    find_places,
    find_snapshots,
    link_fixed_folders,
    write_model_paths,
)
from src.settings import read_settings

from ..conftest import REAL
from ..model_server import entry, weights

# Of ComfyUI 0.3.64 (folder_paths.py:23-51), and those that later versions added up to 0.38.
KINDS = [
    *("checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models"),
    *("embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "hypernetworks", "photomaker", "classifiers"),
    *("model_patches", "audio_encoders", "upscale_models", "latent_upscale_models", "background_removal"),
    *("frame_interpolation", "geometry_estimation", "optical_flow", "detection"),
]
OF_PACKS = ["ipadapter", "ipadapter-flux", "pulid", "insightface", "facexlib", "xlabs"]


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network volume, and none of the machine's own."""
    there = tmp_path / "runpod-volume"
    there.mkdir()
    monkeypatch.setattr(places, "VOLUMES", (there, tmp_path / "workspace"))
    monkeypatch.setattr(places, "_HUB_CACHE", there / "huggingface-cache" / "hub")
    monkeypatch.setattr(places, "_HUB_STORE", there / "model-store" / "huggingface")
    monkeypatch.setattr(places, "_REPO_STORE", there / "model-store" / "modelrepo-local" / "models")
    return there


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A checkout, as far as models are concerned."""
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    return tmp_path / "ComfyUI"


def put(root: Path, name: str, content: bytes = b"") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or weights(100))
    return path


def test_every_kind_of_model_of_comfyui_and_of_the_packs_has_folders() -> None:
    assert set(KINDS) | set(OF_PACKS) <= folder_names().keys()


def test_every_kind_of_the_comfyui_that_is_here_has_folders() -> None:
    if isinstance(REAL, str):
        pytest.skip(f"no real ComfyUI: {REAL}")
    source = (REAL.directory / "folder_paths.py").read_text()
    kinds = set(re.findall(r'^folder_names_and_paths\["(\w+)"\] = .*models_dir', source, re.MULTILINE))
    assert len(kinds) > 15
    assert kinds <= folder_names().keys()


def test_every_folder_of_the_manifest_is_one() -> None:
    for model in shipped_manifest().models:
        assert model.folder.split("/")[0] in folder_names(), model.name


def test_both_names_of_renamed_folders_are_looked_into() -> None:
    assert folders_for("clip") == ("clip", "text_encoders")
    assert folders_for("text_encoders") == ("text_encoders", "clip")
    assert folders_for("unet") == ("unet", "diffusion_models", "checkpoints")
    assert folders_for("clip_vision/siglip") == ("clip_vision/siglip",)
    assert folders_for("of_somebody") == ("of_somebody",)


def test_models_go_to_the_volume_if_there_is_one(volume: Path, comfyui: Path) -> None:
    found = find_places(read_settings({}), comfyui)
    assert found.target == volume / "models"
    assert found.roots == (comfyui / "models", volume / "models")
    (volume / "ComfyUI" / "models").mkdir(parents=True)
    assert find_places(read_settings({}), comfyui).target == volume / "ComfyUI" / "models"
    (volume / "models").mkdir()
    both = find_places(read_settings({}), comfyui)
    assert both.target == volume / "models"
    assert both.roots[1:] == (volume / "models", volume / "ComfyUI" / "models")


def test_without_a_volume_they_go_to_comfyui(volume: Path, comfyui: Path) -> None:
    volume.rmdir()
    assert find_places(read_settings({}), comfyui) == Places((comfyui / "models",), comfyui / "models")


def test_models_dir_goes_before_all(volume: Path, comfyui: Path, tmp_path: Path) -> None:
    (volume / "models").mkdir()
    found = find_places(read_settings({"MODELS_DIR": str(tmp_path / "own")}), comfyui)
    assert found.target == tmp_path / "own"
    assert found.roots == (tmp_path / "own", comfyui / "models", volume / "models")


def model(folder: str = "diffusion_models", file: str = "flux1-dev.safetensors", content: bytes = b"") -> Model:
    source = {"url": "https://x/y"}
    return Model.model_validate(entry("m", content or weights(100), source, folder=folder, file=file))


@pytest.mark.parametrize("folder", ["diffusion_models", "unet", "checkpoints"])
def test_flux1_dev_is_found_in_each_folder_that_people_put_it_in(tmp_path: Path, folder: str) -> None:
    there = put(tmp_path, f"{folder}/flux1-dev.safetensors")
    assert Places((tmp_path,), tmp_path).find(model()) == there


def test_a_file_of_the_name_that_is_another_one_or_broken_is_passed_over(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    put(first, "diffusion_models/flux1-dev.safetensors", weights(101))
    put(first, "unet/flux1-dev.safetensors", weights(100)[:-1] + b"")
    there = put(second, "unet/flux1-dev.safetensors")
    assert Places((first, second), first).find(model()) == there
    assert Places((first,), first).find(model()) is None


def test_a_name_of_a_workflow_is_located_in_any_folder_and_nowhere_else(tmp_path: Path) -> None:
    lora = put(tmp_path, "loras/style/x.safetensors")
    put(tmp_path.parent, "outside.safetensors")
    root = Places((tmp_path,), tmp_path)
    assert root.locate("style/x.safetensors") == root.locate("style\\x.safetensors") == lora
    assert root.locate("x.safetensors") is None
    assert root.locate("../../outside.safetensors") is None
    assert root.locate(str(lora)) is None


# --- What ComfyUI is told --------------------------------------------------------------------------------


def told(settings: dict[str, str], comfyui: Path, folder: Path) -> dict[str, dict[str, Any]]:
    file = folder / "paths.yaml"
    write_model_paths(read_settings(settings), comfyui, file, folder / "links")
    blocks: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())
    assert all(isinstance(value, (str, bool)) for block in blocks.values() for value in block.values())
    return blocks


def test_comfyui_is_told_of_the_places_that_there_are(volume: Path, comfyui: Path, tmp_path: Path) -> None:
    blocks = told({}, comfyui, tmp_path)
    assert [block["base_path"] for block in blocks.values()] == [str(comfyui / "models"), str(volume / "models")] * 2
    assert blocks["root1"]["diffusion_models"].split() == ["diffusion_models", "unet"]
    assert blocks["also1"] == {"base_path": str(volume / "models"), "diffusion_models": "checkpoints"}


def test_copies_and_models_dir_go_before_all(volume: Path, comfyui: Path, tmp_path: Path) -> None:
    blocks = told({"MODELS_DIR": "/own", "MODEL_CACHE_DIR": "/fast"}, comfyui, tmp_path)
    first = [block["base_path"] for block in blocks.values() if block.get("is_default")]
    assert first == ["/own", "/fast/comfyui-worker-copies"]  # ComfyUI puts the last one first


def test_folders_that_packs_look_for_in_one_place_only_are_linked(volume: Path, comfyui: Path) -> None:
    for name in ("ipadapter-flux", "pulid", "insightface", "facexlib", "clip_vision/siglip-so400m-patch14-384"):
        put(volume, f"models/{name}/x.bin")
    put(comfyui, "models/pulid/mine.safetensors")
    roots = find_places(read_settings({}), comfyui).roots
    made = link_fixed_folders(comfyui, roots)
    assert len(made) == 4
    assert (comfyui / "models" / "insightface" / "x.bin").is_file()
    assert (comfyui / "models" / "clip_vision" / "siglip-so400m-patch14-384" / "x.bin").is_file()
    assert not (comfyui / "models" / "pulid").is_symlink()  # somebody's own
    assert link_fixed_folders(comfyui, roots) == []


def test_a_link_to_a_volume_that_is_gone_is_made_anew(volume: Path, comfyui: Path) -> None:
    put(volume, "models/insightface/x.bin")
    (comfyui / "models" / "insightface").symlink_to("/gone/insightface")
    assert link_fixed_folders(comfyui, (volume / "models",)) == [comfyui / "models" / "insightface"]
    assert (comfyui / "models" / "insightface" / "x.bin").is_file()


def test_files_of_cached_repositories_get_the_folders_and_names_that_workflows_use(volume: Path) -> None:
    hub = volume / "huggingface-cache" / "hub"
    known = entry(
        "cn", weights(100), {"repository": "Shakker-Labs/Union", "path": "diffusion_pytorch_model.safetensors"},
        folder="controlnet", file="union.safetensors",
    )  # fmt: skip
    manifest = read_manifest({"models": [known]}, shipped_manifest())
    repository = hub / "models--shakker-labs--union"
    put(repository, "snapshots/old/diffusion_pytorch_model.safetensors")
    put(repository, "snapshots/new/diffusion_pytorch_model.safetensors")
    put(repository, "refs/main", b"new")
    other = hub / "models--org--mixed" / "snapshots" / "1"
    put(other, "split_files/vae/own_vae.safetensors")
    put(other, "top.safetensors")
    put(other, "transformer/diffusion_pytorch_model-00001-of-00002.safetensors")
    put(other, "README.md", b"x")
    found = cached_files(find_snapshots(""), manifest)
    top = {
        f"{kind}/top.safetensors"
        for kind in (
            *("checkpoints", "diffusion_models", "loras", "text_encoders", "vae"),
            *("controlnet", "clip_vision", "upscale_models", "style_models"),
        )
    }
    assert found.keys() == {"controlnet/union.safetensors", "vae/own_vae.safetensors", *top}
    assert "new" in found["controlnet/union.safetensors"].parts
    assert "old" in cached_files(find_snapshots("old"), manifest)["controlnet/union.safetensors"].parts


def test_a_file_below_a_folder_of_comfyui_is_found_by_its_path_there_and_by_its_name(volume: Path) -> None:
    snapshot = volume / "model-store" / "huggingface" / "org" / "name" / "1"
    put(snapshot, "vae/loras/style/inks.safetensors")
    found = cached_files(find_snapshots(""), shipped_manifest())
    assert found.keys() == {"loras/style/inks.safetensors", "loras/inks.safetensors"}


STORES = {
    "Hugging Face's cache": "huggingface-cache/hub/models--org--name/snapshots/{}",
    "RunPod's store": "model-store/huggingface/org/name/{}",
    "the same, nested": "model-store/huggingface/org/name/{}/snapshots/{}",
    "RunPod's Model Repo": "model-store/modelrepo-local/models/org/name/{}",
}


@pytest.mark.parametrize("folder", STORES.values(), ids=STORES.keys())
def test_each_place_of_runpods_cache_is_known(volume: Path, comfyui: Path, folder: str) -> None:
    there = {revision: put(volume, f"{folder.format(revision, revision)}/split_files/vae/a.sft") for revision in "123"}
    os.utime(there["2"].parents[2], (2e9, 2e9))
    places = find_places(read_settings({"MODEL_REVISION": "1"}), comfyui)
    assert places.find(model("vae", "a.sft")) == there["1"]
    assert find_places(read_settings({}), comfyui).locate("a.sft") in there.values()


def test_what_runpod_has_cached_is_found_and_linked(volume: Path, comfyui: Path, tmp_path: Path) -> None:
    snapshot = volume / "huggingface-cache" / "hub" / "models--org--name" / "snapshots" / "1"
    there = put(snapshot, "split_files/vae/own_vae.safetensors")
    found = find_places(read_settings({}), comfyui)
    assert found.find(model("vae", "own_vae.safetensors")) == found.locate("own_vae.safetensors") == there
    blocks = told({}, comfyui, tmp_path)
    links = Path(blocks["root2"]["base_path"])
    assert (links / "vae" / "own_vae.safetensors").resolve() == there.resolve()
