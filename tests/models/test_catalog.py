"""The models that ComfyUI's stock templates name are known: as sets, and by file name, behind those of the manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from maintenance.catalog import catalog
from src.errors import UnknownModelSet
from src.models.catalog import CATALOG_FILE, KnownManifest, known_manifest, stock_catalog
from src.models.manifest import shipped_manifest
from src.settings import Settings

from ..model_server import model_server, weights
from .test_fetch import fetcher_for, nothing

KNOWN = known_manifest(Settings())


def test_the_catalog_is_what_the_packages_give() -> None:
    assert json.loads(CATALOG_FILE.read_text(encoding="utf-8")) == catalog()[0]


def test_each_template_is_a_set_and_the_manifest_goes_first() -> None:
    assert len(stock_catalog().sets) > 300
    for name, members in stock_catalog().sets.items():
        assert len(KNOWN.expand([name])) == len(members), name
    of_flux = KNOWN.expand(["TEMPLATE:flux_dev_full_text_to_image", "flux1-dev"])
    pinned = {model.name for model in shipped_manifest().expand(["flux1-dev"])}
    assert pinned <= {model.name for model in of_flux}
    (clip,) = [model for model in of_flux if model.file == "clip_l.safetensors"]
    assert clip.sha256  # the same file of the same repository, pinned


def test_a_model_is_found_by_the_name_in_a_workflow() -> None:
    (model, *_) = KNOWN.find_by_path("qwen_image_vae.safetensors", "vae")
    assert model.source.page.startswith("https://huggingface.co/Comfy-Org/")
    assert KNOWN.expand([model.name]) == [model]
    assert KNOWN.model(model.name) == model
    assert all(model.sha256 or model.source.revision for model in KNOWN.find_by_path("ae.safetensors", "vae"))
    assert not any(model.pickle for model in stock_catalog().models)


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(
        UnknownModelSet, match="no stock template 'image_qwen_imag' with models; similar names: template:imag"
    ):
        KNOWN.expand(["template:image_qwen_imag"])
    with pytest.raises(UnknownModelSet, match="there is no set or model 'nothing'"):
        KNOWN.expand(["nothing"])


def test_a_model_of_the_catalog_is_checked_by_what_its_source_says_and_kept(tmp_path: Path) -> None:
    model = KNOWN.find_by_path("qwen_image_vae.safetensors", "vae")[0]
    content = weights(1 << 20)
    with model_server() as server:
        server.files[str(model.source.path)] = content
        fetcher = fetcher_for(tmp_path, server)
        fetcher.fetch([model], nothing)
        (kept,) = (tmp_path / ".checked").rglob("*.json")
        assert json.loads(kept.read_text())["sha256"] == hashlib.sha256(content).hexdigest()
        sent = server.sent
        fetcher.fetch([model], nothing)
        assert server.sent == sent


def test_the_manifest_goes_before_the_catalog(tmp_path: Path) -> None:
    entry = {
        "name": "my-vae",
        "folder": "vae",
        "file": "qwen_image_vae.safetensors",
        "source": {"url": "https://models.example.com/vae.safetensors"},
        "sha256": "0" * 64,
        "licence": "mine",
        "commercial_ok": True,
    }
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"models": [entry]}))
    known = known_manifest(Settings(models_manifest=str(file)))
    assert isinstance(known, KnownManifest)
    assert [model.name for model in known.find_by_file("qwen_image_vae.safetensors", "vae")] == ["my-vae"]
