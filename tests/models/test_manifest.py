"""Every model that we know of is well-formed, pinned and safe; what is added to the manifest has to be too."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from src.errors import InvalidManifest, UnknownModelSet
from src.models.manifest import MANIFEST_FILE, read_manifest, shipped_manifest, where_to_get

CONTENT = json.loads(MANIFEST_FILE.read_text())


def test_the_sets_that_people_ask_for_are_there() -> None:
    wanted = {"flux1-dev", "flux1-dev-fp8", "flux1-kontext", "flux1-schnell", "z-image-turbo", "flux2-klein-4b"}
    extras = {"controlnet-union", "ip-adapter-siglip", "pulid", "upscalers"}
    assert wanted | extras <= shipped_manifest().sets.keys()


def test_no_set_needs_a_token_or_lands_twice_in_one_place() -> None:
    manifest = shipped_manifest()
    for name in manifest.sets:
        models = manifest.expand([name])
        assert not [model.name for model in models if model.gated], name
        places = [(model.folder, model.file) for model in models]
        assert len(set(places)) == len(places), name


def test_equal_files_have_equal_digests_and_a_name_clash_is_in_two_folders() -> None:
    manifest = shipped_manifest()
    by_place: dict[tuple[str, str], set[str | None]] = {}
    for model in manifest.models:
        by_place.setdefault((model.folder, model.file), set()).add(model.sha256)
    assert all(len(digests) == 1 for digests in by_place.values())
    assert {model.folder for model in manifest.find_by_file("flux1-dev-fp8.safetensors")} == {
        "checkpoints",
        "diffusion_models",
    }


def test_a_gated_model_names_one_that_is_not() -> None:
    manifest = shipped_manifest()
    for model in manifest.models:
        if model.gated:
            assert model.instead
            assert not manifest.model(model.instead).gated


def test_a_set_and_a_model_can_be_named_and_nothing_comes_twice() -> None:
    models = shipped_manifest().expand(["flux1-dev", "flux1-schnell", "ae"])
    assert [model.name for model in models] == [
        *("flux1-dev", "clip_l", "t5xxl_fp16", "ae", "flux1-schnell", "t5xxl_fp8_e4m3fn_scaled"),
    ]


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(UnknownModelSet, match=r"no set or model 'flux-dev'; similar names: flux1-dev"):
        shipped_manifest().expand(["flux-dev"])


def test_a_missing_file_is_told_where_it_is_to_be_had() -> None:
    (told,) = where_to_get("sub\\ae.safetensors", shipped_manifest())
    assert told.startswith("ae.safetensors for models/vae is available at https://huggingface.co/Comfy-Org/")
    assert "0.3 GB, Apache-2.0" in told
    first, second = where_to_get("flux1-dev.safetensors", shipped_manifest())
    assert "accepted" not in first
    assert "accept its licence" in second
    assert "not for commercial use" in first
    assert where_to_get("mine.safetensors", shipped_manifest()) == []


Change = Callable[[dict[str, Any]], Any]
WRONG: dict[str, tuple[Change, str]] = {
    "a way out of the folder": (lambda m: m.update(folder="../x"), "leads out of its folder|pattern"),
    "a way out by the file": (lambda m: m.update(file="../x"), "pattern"),
    "a way out by the path": (lambda m: m["source"].update(path="../../x"), "leads out"),
    "a short digest": (lambda m: m.update(sha256="abc"), "pattern"),
    "a branch for a revision": (lambda m: m["source"].update(revision="main"), "pattern"),
    "nothing that pins it": (lambda m: (m.pop("sha256"), m["source"].pop("revision")), "sha256 or a revision"),
    "a pickle that is not called one": (lambda m: m.update(file="x.pth"), "pickle must be true"),
    "a pickle without a digest": (lambda m: (m.update(file="x.pth", pickle=True), m.pop("sha256")), "can run code"),
    "two sources": (lambda m: m["source"].update(url="https://x"), "one of repository, url or key"),
    "another scheme": (lambda m: m.update(source={"url": "ftp://x"}), "pattern"),
    "a size of zero": (lambda m: m.update(size=0), "greater than 0"),
    "an unknown field": (lambda m: m.update(hash="x"), "Extra inputs"),
    "no licence": (lambda m: m.pop("licence"), "Field required"),
    "a stand-in that is none": (lambda m: m.update(instead="nobody"), "no model named nobody"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG.keys())
def test_an_entry_that_cannot_be_used_is_refused_with_its_place(change: Change, said: str) -> None:
    content = copy.deepcopy(CONTENT)
    change(content["models"][0])
    with pytest.raises(InvalidManifest, match=said):
        read_manifest(content)


def test_what_is_wrong_names_the_model_and_what_would_be_right() -> None:
    entry = {"name": "mine", "folder": "loras", "source": {"repository": "me/x", "revision": "main", "path": "x"}}
    with pytest.raises(InvalidManifest) as caught:
        read_manifest({"models": [{**entry, "file": "a/b.safetensors"}]}, shipped_manifest())
    for said in (
        "model 'mine'.file: ",
        "put a subfolder into folder",
        "the 40 hexadecimal digits of a commit",
        "model 'mine'.licence: Field required",
    ):
        assert said in caught.value.message
    wrong: list[object] = [[1], {"models": None}, {"model": []}, {"sets": ["a"]}, None]
    for content in wrong:
        with pytest.raises(InvalidManifest):
            read_manifest(content, shipped_manifest())


def test_names_are_taken_as_people_write_them() -> None:
    manifest = shipped_manifest()
    assert manifest.expand(["Flux1-Dev-FP8, upscalers"]) == manifest.expand(["flux1-dev-fp8", "upscalers"])
    with pytest.raises(UnknownModelSet, match="a folder goes into MODELS_DIR"):
        manifest.expand(["/models"])


def test_ones_own_models_go_first_and_no_password_stands_in_an_address() -> None:
    first = CONTENT["models"][0]
    own = read_manifest({"models": [{**first, "name": "mine"}]}, shipped_manifest())
    assert [model.name for model in own.find_by_file(first["file"])] == ["mine", first["name"]]
    with pytest.raises(InvalidManifest, match="must not contain a user or password") as caught:
        read_manifest({"models": [{**first, "source": {"url": "https://me:hush@x.example/a"}}]}, shipped_manifest())
    assert "hush" not in caught.value.message


def test_a_digest_in_capitals_and_a_name_with_blanks_are_fine() -> None:
    first = CONTENT["models"][0]
    own = {**first, "sha256": first["sha256"].upper(), "file": "my lora (v1).safetensors"}
    model = read_manifest({"models": [own]}, shipped_manifest()).model("clip_l")
    assert model.sha256 == first["sha256"]


def test_a_model_is_known_by_both_names_of_its_folder_and_a_name_that_says_nothing_is_not() -> None:
    own = {**CONTENT["models"][0], "name": "x", "folder": "unet", "file": "x.safetensors"}
    manifest = read_manifest({"models": [own]}, shipped_manifest())
    assert [model.name for model in manifest.find_by_file("x.safetensors", "diffusion_models")] == ["x"]
    assert manifest.find_by_file("x.safetensors", "vae") == []
    assert manifest.find_by_file("model.safetensors") == []


@pytest.mark.parametrize(
    ("path", "folder", "found"),
    [
        ("SDXL/x.safetensors", "checkpoints", ["x"]),
        ("SDXL\\x.safetensors", "checkpoints", ["x"]),
        ("SDXL\\x.safetensors", "", ["x"]),
        ("SDXL\\x.safetensors", "vae", []),
        ("sdxl\\x.safetensors", "checkpoints", []),
        ("other/x.safetensors", "checkpoints", []),
        ("SDXL/ae.safetensors", "vae", []),
    ],
)
def test_a_path_with_folders_is_known_however_they_are_separated(path: str, folder: str, found: list[str]) -> None:
    own = {**CONTENT["models"][0], "name": "x", "folder": "checkpoints/SDXL", "file": "x.safetensors"}
    manifest = read_manifest({"models": [own]}, shipped_manifest())
    assert [model.name for model in manifest.find_by_path(path, folder)] == found
    assert manifest.find_by_path("ae.safetensors", "vae") == manifest.find_by_file("ae.safetensors", "vae") != []


def test_what_is_told_of_a_source_has_no_key_in_it() -> None:
    signed = {
        **CONTENT["models"][0],
        "name": "x",
        "file": "x.safetensors",
        "source": {"url": "https://c.example/1?token=S"},
    }
    stored = {**CONTENT["models"][0], "name": "y", "file": "y.safetensors", "source": {"key": "private/y"}}
    manifest = read_manifest({"models": [signed, stored]}, shipped_manifest())
    (told,) = where_to_get("x.safetensors", manifest)
    assert "https://c.example/1:" in told
    assert "token" not in told
    assert "is available at the bucket of models" in where_to_get("y.safetensors", manifest)[0]


def test_an_own_manifest_takes_the_place_of_what_has_the_same_name() -> None:
    own = {**CONTENT["models"][0], "size": 5, "file": "mine.safetensors"}
    merged = read_manifest(
        {"models": [own], "sets": {"mine": ["clip_l"], "flux1-dev": ["clip_l"]}}, shipped_manifest()
    )
    assert merged.model("clip_l").file == "mine.safetensors"
    assert merged.sets["flux1-dev"] == merged.sets["mine"] == ("clip_l",)
    assert "flux1-schnell" in merged.sets
    with pytest.raises(InvalidManifest, match="no model named nope"):
        read_manifest({"sets": {"mine": ["nope"]}}, shipped_manifest())
