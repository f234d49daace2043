"""Models that a job names by URL: fetched from the hosts that may be asked, checked, bounded, kept; else refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from src.errors import MissingModel, ModelCorrupt, ModelFetchFailed, ModelGated, ModelRefused, NoSpaceForModels
from src.models.job_models import JobModels, NamedModel
from src.models.kept import KeptModels
from src.models.partial import RESERVED_BYTES
from src.models.provisioning import ModelProvisioner
from src.settings import Settings

from ..model_server import TOKEN, ModelServer, model_server, weights
from .test_fetch import files_of, nothing
from .test_fetch import mounted as mounting

CONTENT = weights(100_000)
mounted = contextmanager(mounting)


@dataclass
class Place:
    """A worker's models below a folder, and a server that is a hub, Civitai and a plain site at once."""

    folder: Path
    server: ModelServer

    def models(self, *wanted: NamedModel, saved: tuple[NamedModel, ...] = (), **changes: Any) -> JobModels:
        settings = Settings(
            models_dir=str(self.folder / "models"),
            download_models=True,
            hf_endpoint=self.server.url,
            trusted_hosts=(self.server.host, self.server.host.replace("127.0.0.1", "localhost")),
            model_hosts=("huggingface.co", "civitai.com", self.server.host),
        )
        settings = replace(settings, **changes)
        (self.folder / "comfyui" / "models").mkdir(parents=True, exist_ok=True)
        return ModelProvisioner.make(settings, self.folder / "comfyui").for_job(wanted, lambda: saved)

    def file(self, name: str = "a.safetensors") -> str:
        return f"{self.server.url}/files/{name}"

    @property
    def there(self) -> set[str]:
        return files_of(self.folder / "models")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with model_server(a=CONTENT) as server:
        yield Place(tmp_path, server)


def named(url: str, name: str = "style.safetensors", folder: str = "loras", **more: Any) -> NamedModel:
    return NamedModel(folder, name, url, "models[0]", **more)


def missing(*names: str, folder: str = "loras") -> MissingModel:
    return MissingModel("missing", True, missing_models=[{"name": name, "folder": folder} for name in names])


# --- Fetched ---------------------------------------------------------------------------------------------


def test_what_a_job_names_is_there_before_its_run_and_fetched_once(place: Place) -> None:
    wanted = named(place.file(), "sub/style.safetensors", sha256=place.server.sha256("a.safetensors"))
    models = place.models(wanted)
    models.check_wanted()
    models.fetch_wanted(nothing)
    assert (place.folder / "models/loras/sub/style.safetensors").read_bytes() == CONTENT
    sent = place.server.sent
    place.models(wanted).fetch_wanted(nothing)
    assert place.server.sent == sent


def test_a_url_of_the_hub_goes_to_the_hub_with_its_token(place: Place) -> None:
    place.server.files["style.safetensors"] = CONTENT
    place.server.gated = {"owner/repo"}
    url = "https://huggingface.co/owner/repo/blob/v1.0/style.safetensors?download=true"
    with pytest.raises(ModelGated, match="set HF_TOKEN"):
        place.models(named(url)).fetch_wanted(nothing)
    place.models(named(url), hf_token=TOKEN).fetch_wanted(nothing)
    assert place.there == {"style.safetensors"}
    assert any("/owner/repo/resolve/v1.0/style.safetensors" in line for line in place.server.requests)
    assert {path.split("?")[0] for path, _ in place.server.tokens} == {"/owner/repo/resolve/v1.0/style.safetensors"}


def test_civitai_is_asked_for_the_digest_and_gets_its_token(place: Place) -> None:
    files: list[dict[str, Any]] = [
        {"name": "x.ckpt", "type": "Model", "metadata": {"format": "PickleTensor"}, "hashes": {"SHA256": "0" * 64}},
        {
            "name": "x.safetensors", "type": "Model", "primary": True, "metadata": {"format": "SafeTensor"},
            "hashes": {"SHA256": place.server.sha256("a.safetensors").upper()},
        },
    ]  # fmt: skip
    place.server.extra["/api/v1/model-versions/42"] = {"id": 42, "files": files}
    place.server.routes["/api/download/models/42"] = "a.safetensors"
    endpoint: dict[str, Any] = {"civitai_endpoint": place.server.url, "civitai_token": "secret"}
    page = f"{place.server.url}/models/7/some-style?modelVersionId=42"
    download = f"{place.server.url}/api/download/models/42?type=Model&format=SafeTensor&token=mine"
    for url, name in ((page, "one.safetensors"), (download, "two.safetensors")):
        place.models(named(url, name), **endpoint).fetch_wanted(nothing)
    assert place.there == {"one.safetensors", "two.safetensors"}
    asked = {path.split("?")[0] for path, token in place.server.tokens if token == "secret"}
    assert asked == {"/api/download/models/42"}
    assert not any("mine" in line for line in place.server.requests)
    with pytest.raises(ModelCorrupt, match="SHA-256"):
        place.models(named(page, "three.safetensors", sha256="1" * 64), **endpoint).fetch_wanted(nothing)
    files[1]["hashes"] = {}
    with pytest.raises(ModelFetchFailed, match="no SHA-256"):
        place.models(named(page, "four.safetensors"), **endpoint).fetch_wanted(nothing)
    with pytest.raises(ModelFetchFailed, match="modelVersionId"):
        place.models(named(f"{place.server.url}/models/7", "five.safetensors"), **endpoint).fetch_wanted(nothing)


def test_what_a_saved_workflow_says_is_fetched_when_it_is_missed(place: Place) -> None:
    saved = NamedModel("loras", "style.safetensors", place.file(), "the workflow", is_wanted=False)
    models = place.models(saved=(saved,))
    models.fetch_wanted(nothing)
    assert not place.there
    assert models.fetch_missing(missing("style.safetensors"), nothing)
    assert models.fetch_missing(missing("mine\\style.safetensors"), nothing)
    assert (place.folder / "models/loras/style.safetensors").is_file()
    assert (place.folder / "models/loras/mine/style.safetensors").is_file()
    assert not models.fetch_missing(missing("style.safetensors", folder="vae"), nothing)
    assert not models.fetch_missing(missing("style.safetensors", "other.safetensors"), nothing)


def test_what_the_manifest_has_pinned_goes_before_what_a_workflow_says(place: Place) -> None:
    saved = NamedModel("vae", "ae.safetensors", place.file(), "the workflow", is_wanted=False)
    models = place.models(saved=(saved,))
    found = models.to_fetch("ae.safetensors", "vae")
    assert found is not None
    assert found.source.repository
    catalogued = NamedModel("vae", "qwen_image_vae.safetensors", place.file(), "the workflow", is_wanted=False)
    found = place.models(saved=(catalogued,)).to_fetch("qwen_image_vae.safetensors", "vae")
    assert found is not None
    assert found.source.url == place.file()


# --- Refused ---------------------------------------------------------------------------------------------

REFUSED = {
    "another host": (
        {"url": "https://example.com/x.safetensors"},
        "not downloaded from 'example.com'; MODEL_HOSTS allows",
    ),
    "a user in front of a host": (
        {"url": "https://huggingface.co@example.com/x.safetensors"},
        "not contain a user or password",
    ),
    "a host that begins alike": ({"url": "https://huggingface.co.example.com/x"}, "not downloaded from"),
    "plain http": ({"url": "http://huggingface.co/o/r/resolve/main/x.safetensors"}, "must begin with https"),
    "no URL": ({"url": "x.safetensors"}, "must begin with https"),
    "a pickle": ({"name": "x.ckpt"}, "contain no code"),
    "a script": ({"name": "x.py"}, "contain no code"),
    "a folder of its own": ({"folder": "custom_nodes"}, "not one of ComfyUI's model folders"),
    "a folder outside": ({"folder": "../custom_nodes"}, "not one of ComfyUI's model folders"),
    "a name outside": ({"name": "../../x.safetensors"}, "not valid"),
    "an absolute name": ({"name": "/etc/x.safetensors"}, "not valid"),
    "a name with a control character": ({"name": "a\0b.safetensors"}, "not valid"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_may_not_be_fetched_is_refused_with_its_place(place: Place, change: dict[str, str], said: str) -> None:
    given = {"url": "https://huggingface.co/o/r/resolve/main/x.safetensors", **change}
    models = place.models(named(**given))
    for refuse in (models.check_wanted, lambda: models.fetch_wanted(nothing)):
        with pytest.raises(ModelRefused, match=said) as caught:
            refuse()
        assert caught.value.message.startswith("models[0]")
    assert not place.there
    saved = place.models(saved=(NamedModel(**{**vars(named(**given)), "where": "the workflow", "is_wanted": False}),))
    assert saved.to_fetch(given.get("name", "style.safetensors"), "") is None


def test_without_download_models_nothing_is_fetched_and_the_job_is_told(place: Place) -> None:
    models = place.models(named(place.file()), download_models=False)
    with pytest.raises(ModelRefused, match="DOWNLOAD_MODELS=true"):
        models.check_wanted()
    saved = NamedModel("loras", "style.safetensors", place.file(), "the workflow", is_wanted=False)
    models = place.models(saved=(saved,), download_models=False)
    assert not models.fetch_missing(missing("style.safetensors"), nothing)
    told = models.explain(missing("style.safetensors")).message
    assert (
        told
        == "missing\nthe workflow has a URL for style.safetensors: DOWNLOAD_MODELS=true allows the worker to download it"
    )
    assert not place.server.requests


def test_a_workflow_that_names_another_host_is_told_which_may_be_asked(place: Place) -> None:
    saved = NamedModel("loras", "style.safetensors", "https://example.com/x", "the workflow", is_wanted=False)
    told = place.models(saved=(saved,)).explain(missing("style.safetensors")).message
    assert "the workflow: models are not downloaded from 'example.com'; MODEL_HOSTS allows these hosts" in told


def test_private_addresses_and_redirects_to_them_are_refused(place: Place) -> None:
    private = place.server.url.replace("127.0.0.1", "127.0.0.2")
    host = private.removeprefix("http://")
    hosts: dict[str, Any] = {
        "model_hosts": (place.server.host, host),
        "trusted_hosts": (place.server.host,),
        "allow_http_urls": True,
    }
    with pytest.raises(ModelFetchFailed, match="private address"):
        place.models(named(f"{private}/files/a.safetensors"), **hosts).fetch_wanted(nothing)
    place.server.statuses = [(302, {"Location": f"{private}/files/a.safetensors"})] * 3
    with pytest.raises(ModelFetchFailed, match="private address"):
        place.models(named(place.file()), **hosts).fetch_wanted(nothing)
    assert not place.there


def test_another_file_than_the_job_means_is_told(place: Place) -> None:
    with pytest.raises(ModelCorrupt, match="SHA-256"):
        place.models(named(place.file(), sha256="0" * 64)).fetch_wanted(nothing)
    assert not place.there
    place.models(named(place.file())).fetch_wanted(nothing)
    with pytest.raises(ModelCorrupt, match=r"loras/style\.safetensors exists, but is not the expected file"):
        place.models(named(place.file(), sha256="0" * 64)).fetch_wanted(nothing)


@pytest.mark.parametrize("name", ["style.safetensors", "style.gguf"])
def test_a_page_or_another_content_in_place_of_a_file_is_not_kept(place: Place, name: str) -> None:
    place.server.files["b.bin"] = b"\0" * 1000
    with pytest.raises(ModelCorrupt, match=r"does not start like|its safetensors header"):
        place.models(named(place.file("b.bin"), name)).fetch_wanted(nothing)
    place.server.page = True
    with pytest.raises(ModelCorrupt, match="a web page instead of the file"):
        place.models(named(place.file(), name)).fetch_wanted(nothing)
    assert not {file for file in place.there if file == name}


# --- Bounds ------------------------------------------------------------------------------------------------


def test_a_job_is_bounded_before_anything_is_fetched(place: Place) -> None:
    with pytest.raises(ModelFetchFailed, match=r"at most 5e-05 GB are downloaded for one job \(MAX_JOB_MODEL_GB\)"):
        place.models(named(place.file()), max_job_models=0.00005).fetch_wanted(nothing)
    names = [f"{number}.safetensors" for number in range(200)]
    saved = tuple(NamedModel("loras", name, place.file(), "the workflow", is_wanted=False) for name in names)
    with pytest.raises(ModelFetchFailed, match="needs 200 missing models; at most 50"):
        place.models(saved=saved).fetch_missing(missing(*names), nothing)
    assert not place.there
    assert place.server.sent <= 1


def test_models_fetched_for_jobs_go_when_others_need_the_room_those_used_longest_ago_first(place: Place) -> None:
    (place.folder / "models/loras").mkdir(parents=True)
    (place.folder / "models/loras/own.safetensors").write_bytes(CONTENT)
    for name in ("first", "second"):
        place.models(named(place.file(), f"{name}.safetensors")).fetch_wanted(nothing)
        time.sleep(0.01)
    place.models().note_use(["first.safetensors"])
    kept = KeptModels(place.folder / "models", 2 * len(CONTENT) + 10, may_remove=True)
    kept.make_room(len(CONTENT))
    assert place.there == {"own.safetensors", "first.safetensors"}
    KeptModels(place.folder / "models", 1, may_remove=False).make_room(len(CONTENT))
    assert place.there == {"own.safetensors", "first.safetensors"}
    kept.make_room(10 * len(CONTENT))
    assert place.there == {"own.safetensors"}


def test_a_full_disk_makes_room_by_models_of_earlier_jobs(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    content, size = weights(20_000_000), f"size={(RESERVED_BYTES >> 20) + 30}m"
    with mounted(tmp_path / "disk", size) as disk, model_server(a=content) as server:
        place = Place(disk, server)
        place.models(named(place.file(), "first.safetensors")).fetch_wanted(nothing)
        place.models(named(place.file(), "second.safetensors")).fetch_wanted(nothing)
        assert place.there == {"second.safetensors"}
        server.files["big.safetensors"] = weights(50_000_000)
        with pytest.raises(NoSpaceForModels):
            place.models(named(place.file("big.safetensors"), "third.safetensors")).fetch_wanted(nothing)


def test_a_folder_that_cannot_be_written_is_told(place: Place) -> None:
    (place.folder / "models").mkdir()
    with mounted(place.folder / "models", "ro"), pytest.raises(ModelFetchFailed, match="cannot be written"):
        place.models(named(place.file())).fetch_wanted(nothing)


def test_notes_of_models_that_are_gone_do_no_harm(place: Place) -> None:
    place.models(named(place.file())).fetch_wanted(nothing)
    (place.folder / "models/loras/style.safetensors").unlink()
    kept = KeptModels(place.folder / "models", 1, may_remove=True)
    kept.make_room(1)
    kept.note_use([place.folder / "models/loras/style.safetensors", Path("/elsewhere")])
    assert not place.there


# --- What a caller must not learn or do --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/etc", "hostname"),
        ("../../etc", "hostname"),
        (".", "x.safetensors"),
        ("", "x.safetensors"),
        ("loras", "../../private.safetensors"),
        ("loras", "/etc/hostname"),
        ("loras", "a" * 300 + ".safetensors"),
        ("loras", "ä" * 180 + ".safetensors"),
        ("loras", "ae.safetensors/x.safetensors"),
    ],
)
@pytest.mark.parametrize("download", [True, False])
def test_nobody_learns_of_files_that_are_no_models(place: Place, folder: str, name: str, download: bool) -> None:
    (place.folder / "private.safetensors").write_bytes(CONTENT)
    wanted = NamedModel(folder, name, place.file(), "models[0]", "0" * 64)
    models = place.models(wanted, download_models=download)
    with pytest.raises((ModelRefused, ModelFetchFailed)) as caught:
        models.fetch_wanted(nothing)
    assert place.server.sha256("a.safetensors") not in caught.value.message
    assert not models.fetcher.places.locate(name)
    assert not list(models.fetcher.places.candidates(folder, name))
    assert not list(place.folder.rglob(".checked"))


def test_the_digest_of_a_file_that_is_there_is_not_told(place: Place) -> None:
    place.models(named(place.file())).fetch_wanted(nothing)
    with pytest.raises(ModelCorrupt) as caught:
        place.models(named(place.file(), sha256="0" * 64)).fetch_wanted(nothing)
    assert place.server.sha256("a.safetensors") not in caught.value.message


def test_a_job_cannot_take_the_place_of_a_pinned_model(place: Place) -> None:
    wanted = NamedModel("vae", "ae.safetensors", place.file(), "models[0]")
    with pytest.raises(ModelRefused, match="already the name of another model"):
        place.models(wanted).fetch_wanted(nothing)
    pinned = place.models().manifest.find_by_path("ae.safetensors", "vae")[0]
    same = place.models(NamedModel("vae", "ae.safetensors", pinned.source.page, "models[0]"))
    assert same.as_model(same.wanted[0]) == pinned


def test_an_empty_file_is_no_model(place: Place) -> None:
    place.server.files["empty.safetensors"] = b""
    with pytest.raises(ModelFetchFailed):
        place.models(named(place.file("empty.safetensors"))).fetch_wanted(nothing)
    assert not place.there


def test_the_bounds_are_for_the_whole_job(place: Place) -> None:
    place.server.files["b.safetensors"] = CONTENT
    saved = NamedModel("loras", "b.safetensors", place.file("b.safetensors"), "the workflow", is_wanted=False)
    models = place.models(named(place.file()), saved=(saved,), max_job_models=len(CONTENT) * 1.5 / 1e9)
    models.fetch_wanted(nothing)
    with pytest.raises(ModelFetchFailed, match="MAX_JOB_MODEL_GB"):
        models.fetch_missing(missing("b.safetensors"), nothing)


def test_what_came_is_noted_although_another_failed_and_what_a_job_uses_stays(place: Place) -> None:
    place.server.files["bad.safetensors"] = b"x" * 100
    for name in ("one.safetensors", "two.safetensors"):
        with pytest.raises(ModelCorrupt):
            models = place.models(named(place.file(), name), named(place.file("bad.safetensors"), "bad.safetensors"))
            models.fetch_wanted(nothing)
    models = place.models(named(place.file(), "three.safetensors"))
    models.note_use(["one.safetensors"])
    replace(models, kept=replace(models.kept, limit=1)).fetch_wanted(nothing)
    assert {"one.safetensors", "three.safetensors"} <= place.there
    assert "two.safetensors" not in place.there


@pytest.mark.parametrize(
    "url", ["http://civitai.com/api/download/models/4", "http://huggingface.co/o/r/resolve/main/x"]
)
def test_the_hub_and_civitai_are_not_asked_in_the_clear(place: Place, url: str) -> None:
    hub, civitai = "https://huggingface.co", "https://civitai.com"
    with pytest.raises(ModelRefused, match="must begin with https"):
        place.models(named(url), hf_endpoint=hub, civitai_endpoint=civitai).check_wanted()


def test_another_port_is_another_host_and_the_usual_one_is_not(place: Place) -> None:
    models = place.models(named("https://civitai.com:8443/api/download/models/4"))
    with pytest.raises(ModelRefused, match=r"not downloaded from 'civitai\.com:8443'"):
        models.check_wanted()
    usual = place.models(named("https://civitai.com:443/api/download/models/4"))
    usual.check_wanted()
    assert usual.fetcher.civitai.has("https://civitai.com:443/api/download/models/4")


def test_a_known_model_that_is_missing_is_told_with_its_source_and_size(place: Place) -> None:
    details = place.models().explain(missing("ae.safetensors", folder="vae")).details
    (told,) = details["missing_models"]
    assert (told["name"], told["folder"], told["model"]) == ("ae.safetensors", "vae", "ae")
    assert told["source"].startswith("https://huggingface.co/")
    assert told["size"] > 10**8
    unknown = place.models().explain(missing("mine.safetensors")).details
    assert unknown["missing_models"] == [{"name": "mine.safetensors", "folder": "loras"}]
