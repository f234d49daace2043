"""A job gets the files that its prompt names from the gateway's folders, and no others."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from src.gateway.endpoint import EndpointFailed
from src.gateway.input_files import LocalFiles, Sender, named_files
from src.inputs.checks import check_name
from src.protocol.executor import Folders
from src.workflow.files import PlacedFile, place_files

from ..endpoint.test_endpoint import Client, serving
from ..s3 import NAME, Storage
from ..workflows import node
from .conftest import GatewayClient, gateway


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    for folder in (folders.input, folders.output, folders.temp):
        folder.mkdir()
    return folders


def put(folder: Path, name: str, content: bytes = b"x") -> Path:
    """A file in a folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sent(folders: Folders, *values: Any, **inputs: Any) -> tuple[Any, dict[str, Path]]:
    """What inputs with these values are in the job, and its files. Each name is one that a job may give a file."""
    prompt = {"1": node("LoadImage", **{f"v{number}": value for number, value in enumerate(values)}, **inputs)}
    named = named_files(prompt, folders)
    for name in named.files:
        check_name(name, "name")
        assert len(name) <= 200
    return list(named.prompt["1"]["inputs"].values()), dict(named.files)


def test_a_file_is_sent_under_its_name(folders: Folders) -> None:
    path, deep = put(folders.input, "photo 1.png"), put(folders.input, "sub/é.png")
    put(folders.input, "other.png")
    assert sent(folders, "photo 1.png") == (["photo 1.png"], {"photo 1.png": path})
    assert sent(folders, "sub/é.png") == (["sub/é.png"], {"sub/é.png": deep})


def test_an_annotated_name_is_of_its_folder(folders: Folders) -> None:
    for kind in ("input", "output", "temp"):
        put(getattr(folders, kind), "a.png", kind.encode())
    values, files = sent(folders, "a.png", "a.png [input]", "a.png [output]", "a.png [temp]", "a.png [output] ")
    assert values == ["a.png", "a.png", "output/a.png", "temp/a.png", "output/a.png"]
    contents = {name: path.read_bytes().decode() for name, path in files.items()}
    assert contents == {"a.png": "input", "output/a.png": "output", "temp/a.png": "temp"}


def test_two_files_of_one_name_get_two(folders: Folders) -> None:
    one, other = put(folders.input, "output/a.png"), put(folders.output, "a.png")
    values, files = sent(folders, "output/a.png", "a.png [output]")
    assert [files[value] for value in values] == [one, other]
    assert sent(folders, "output/a.png", "a.png [output]") == (values, files)  # always the same: it can be cached


@pytest.mark.parametrize(
    "name",
    [
        "12:30.png", " a.png", "a .png ", 'quo"te.png', "que?.png", "back\\slash.png", "pipe|.png", "con.png", "sub/nul.txt",
        "tab\t.png", "a" * 150 + "/" + "b" * 150 + ".png", "é" * 120 + ".png", "a.p:ng", "x." + "y" * 40, "[input].png", "a*b/c.png",
    ],
)  # fmt: skip
def test_a_file_of_an_odd_name_gets_another_one_in_the_job(folders: Folders, name: str) -> None:
    path = put(folders.input, name)
    (value,), files = sent(folders, name)
    assert files == {value: path}
    assert path.suffix == Path(value).suffix or not path.suffix[1:].isalnum() or len(path.suffix) > 17


def test_names_that_lead_through_the_folder_are_sent_and_those_that_lead_out_of_it_are_not(
    folders: Folders, tmp_path: Path
) -> None:
    path = put(folders.input, "sub/a.png")
    secret = put(tmp_path, "secret.png")
    for name in ("sub/../sub/a.png", "./sub/a.png", str(path)):
        (value,), files = sent(folders, name)
        assert files == {value: path}
    (folders.input / "link.png").symlink_to(secret)
    (folders.input / "out").symlink_to(tmp_path)
    (folders.input / "circle").symlink_to("circle")
    (folders.input / "inner.png").symlink_to("sub/a.png")
    for name in (
        "../secret.png", "sub/../../secret.png", str(secret), "/etc/passwd", "link.png", "out/secret.png", "circle",
        "circle/a", "../secret.png [output]", f"{secret} [input]", "..", ".", "", "/", "sub", "out", "a\0b", "\ud800", "x" * 999,
        "none.png", "a\nb", "[input]", " [input]",
    ):  # fmt: skip
        assert sent(folders, name) == ([name], {}), name
    assert sent(folders, "inner.png")[1] == {"inner.png": path}


def test_what_is_no_file_is_not_sent(folders: Folders) -> None:
    os.mkfifo(folders.input / "pipe")
    put(folders.input, "1")
    values: list[Any] = ["pipe", 1, 1.5, None, True, ["1", 0], ["1"], {}, "none.png"]
    for value in values:
        assert sent(folders, value) == ([value], {})


def test_names_inside_of_objects_are_found(folders: Folders) -> None:
    path = put(folders.input, "a:b.png")
    ((found,), files) = sent(folders, {"deep": {"file": "a:b.png", "n": 1}, "list": ["a:b.png"]})
    (name,) = files
    assert found == {"deep": {"file": name, "n": 1}, "list": ["a:b.png"]}
    assert files[name] == path


def test_prompts_and_prefixes_are_no_names(folders: Folders) -> None:
    put(folders.input, "cat")
    put(folders.output, "cat")
    assert sent(folders, filename_prefix="cat")[1] == {}
    assert sent(folders, clip=["1", 0], text="cat [output]") == ([["1", 0], "cat [output]"], {})
    assert sent(folders, text="cat")[1].keys() == {"cat"}


def test_every_file_that_is_sent_is_found_in_the_prompt_by_the_worker(folders: Folders) -> None:
    put(folders.input, "a.png"), put(folders.output, "12:30.png"), put(folders.input, "cat")
    prompt = {
        "1": node("A", image="a.png", deep={"file": "12:30.png [output]"}),
        "2": node("B", clip=["1", 0], text="cat"),
    }
    named = named_files(prompt, folders)
    _, used = place_files(named.prompt, {name: PlacedFile(name, name) for name in named.files})
    assert used == named.files.keys()
    assert len(used) == 2


def test_the_prompt_itself_is_not_changed(folders: Folders) -> None:
    put(folders.input, "a:b.png")
    prompt = {"1": node("LoadImage", image="a:b.png")}
    named_files(prompt, folders)
    assert prompt == {"1": node("LoadImage", image="a:b.png")}


def test_the_names_that_a_prompt_may_have_are_those_that_would_be_sent(folders: Folders, tmp_path: Path) -> None:
    put(folders.input, "a.png"), put(folders.output, "o.png"), put(tmp_path, "secret.png")
    known = LocalFiles(folders)
    assert [name in known for name in ("a.png", "o.png [output]", "a.png [input]")] == [True] * 3
    assert [name in known for name in ("o.png", "../secret.png", "", 5, None, ["a.png"])] == [False] * 6


# --- How they travel -----------------------------------------------------------------------------------


def test_small_files_travel_in_the_job(folders: Folders) -> None:
    (entry,) = Sender(None).fields({"n.png": put(folders.input, "a.png", b"content")})
    assert (entry["name"], base64.b64decode(entry["data"])) == ("n.png", b"content")


def test_files_that_are_too_large_are_refused_with_what_helps(folders: Folders) -> None:
    files = {name: put(folders.input, name, b"x" * 4_000_000) for name in ("a", "b")}
    with pytest.raises(
        EndpointFailed, match=r"8\.0 MB; without a bucket RunPod accepts 6\.5 MB: set BUCKET_ENDPOINT_URL"
    ):
        Sender(None).fields(files)
    assert len(Sender(None).fields({"a": files["a"]})) == 1


def test_a_file_that_is_gone_or_cannot_be_read_is_named(folders: Folders, tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", folders.input):
        with pytest.raises(EndpointFailed, match=f"{path.name} cannot be read") as raised:
            Sender(None).fields({"n.png": path})
        assert str(tmp_path) not in raised.value.message


def test_with_a_bucket_only_what_is_too_large_goes_there_and_only_once(folders: Folders, storage: Storage) -> None:
    from src.storage.bucket import Bucket

    large, small = os.urandom(7_000_000), b"small"
    files = {"large": put(folders.input, "la rge:1.bin", large), "small": put(folders.input, "small.bin", small)}
    sender, before = Sender(Bucket(storage.config)), set(storage.keys())
    first = {entry["name"]: entry for entry in sender.fields(files)}
    assert base64.b64decode(first["small"]["data"]) == small
    assert requests.get(first["large"]["url"], timeout=30).content == large
    (key,) = set(storage.keys()) - before
    storage.client().delete_object(Bucket=NAME, Key=key)
    assert {entry["name"]: entry for entry in sender.fields(files)} == first
    assert set(storage.keys()) == before
    storage.put(key, large)
    put(folders.input, "la rge:1.bin", large[::-1])
    changed = {entry["name"]: entry for entry in sender.fields(files)}
    assert requests.get(changed["large"]["url"], timeout=30).content == large[::-1]
    assert requests.get(first["large"]["url"], timeout=30).content == large  # a job that waits has this one


# --- With a worker -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint whose worker may fetch files from this machine."""
    with serving(tmp_path_factory.mktemp("endpoint"), TRUSTED_HOSTS="127.0.0.1") as served:
        yield served


def variables(storage: Storage) -> dict[str, str]:
    """The settings of the bucket."""
    config = storage.config
    return {
        "BUCKET_ENDPOINT_URL": config.endpoint_url, "BUCKET_NAME": NAME, "BUCKET_ACCESS_KEY_ID": config.access_key_id,
        "BUCKET_SECRET_ACCESS_KEY": config.secret_access_key, "BUCKET_REGION": config.region,
    }  # fmt: skip


def inverted(client: GatewayClient, name: str) -> Image.Image:
    """The picture of that name, inverted by a worker."""
    prompt = {
        "1": node("LoadImage", image=name),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("PreviewImage", images=["2", 0]),
    }
    entry = client.ran(prompt)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (file,) = entry["outputs"]["3"]["images"]
    return Image.open(io.BytesIO(client.content(file)))


def test_a_job_runs_with_files_of_all_kinds(endpoint: Client, storage: Storage, tmp_path: Path) -> None:
    with gateway(tmp_path, endpoint, **variables(storage)) as client:
        (client.folder / "input/12:30").mkdir()
        for name in ("input/12:30/a b.png", "input/a.png", "output/a.png"):
            color = (255, 0, 0) if name == "output/a.png" else (0, 0, 255)
            Image.new("RGB", (8, 8), color).save(client.folder / name)
        Image.new("RGB", (1600, 1600), (0, 0, 255)).save(client.folder / "input/large.bmp")
        before = len(storage.keys())
        for name, color in (
            ("12:30/a b.png", (255, 255, 0)),
            ("a.png", (255, 255, 0)),
            ("a.png [output]", (0, 255, 255)),
        ):
            assert inverted(client, name).convert("RGB").getpixel((0, 0)) == color
        assert len(storage.keys()) == before
        assert inverted(client, "large.bmp [input]").convert("RGB").getpixel((5, 5)) == (255, 255, 0)
        assert len(storage.keys()) > before


def test_without_a_bucket_a_file_that_is_too_large_is_an_error_of_the_prompt(endpoint: Client, tmp_path: Path) -> None:
    with gateway(tmp_path, endpoint) as client:
        Image.new("RGB", (1600, 1600)).save(client.folder / "input/large.bmp")
        entry = client.ran({"1": node("LoadImage", image="large.bmp"), "2": node("PreviewImage", images=["1", 0])})
        kind, data = entry["status"]["messages"][-1]
        assert (kind, "set BUCKET_ENDPOINT_URL" in data["exception_message"]) == ("execution_error", True)
