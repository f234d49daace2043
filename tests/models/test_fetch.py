"""Models come whole, checked and fast, or an error says what to do; nothing that came is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src.errors import JobCancelled, ModelCorrupt, ModelFetchFailed, ModelGated, NoSpaceForModels, WorkerError
from src.models import fetch as fetch_room
from src.models.fetch import Fetcher
from src.models.hub import Hub
from src.models.manifest import Model, read_manifest, shipped_manifest
from src.models.partial import partial_of, parts_of
from src.models.places import Places
from src.models.transfer import TransferLimits
from src.storage.web import FetchRules

from ..model_server import COMMIT, TOKEN, ModelServer, entry, model_server, weights
from ..worker_process import ROOT

SIZE = 10_000_000
PART = 1 << 22
CONTENT = weights(SIZE)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server(a=CONTENT) as served:
        yield served


def nothing() -> None:
    """Nobody ends it."""


def fetcher_for(
    folder: Path, server: ModelServer, *entries: dict[str, Any], token: str = "", stall: float = 20.0
) -> Fetcher:
    manifest = read_manifest({"models": list(entries)}, shipped_manifest())
    rules = FetchRules(trusted_hosts=frozenset({server.host, server.host.replace("127.0.0.1", "localhost")}))
    limits = TransferLimits(stall, PART)
    return Fetcher(
        Places((folder,), folder), manifest, Hub(server.url, token), rules, None, limits, min_xet_bytes=1 << 20
    )


def from_web(server: ModelServer, **changes: Any) -> dict[str, Any]:
    return entry("a", CONTENT, {"url": f"{server.url}/files/a.safetensors"}, **changes)


def from_hub(**changes: Any) -> dict[str, Any]:
    source = {"repository": "org/repo", "revision": COMMIT, "path": "a.safetensors"}
    return entry("a", CONTENT, source, **changes)


def fetch(fetcher: Fetcher, *names: str, check: Callable[[], None] = nothing) -> list[Path]:
    models = [fetcher.manifest.model(name) for name in names or ("a",)]
    fetcher.fetch(models, check)
    return [fetcher.places.target_of(model) for model in models]


def files_of(folder: Path) -> set[str]:
    """All files but the notes of digests."""
    return {path.name for path in folder.rglob("*") if path.is_file() and ".checked" not in path.parts}


# --- It comes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["web", "hub"])
def test_a_file_comes_whole_and_leaves_nothing_else(tmp_path: Path, server: ModelServer, kind: str) -> None:
    fetcher = fetcher_for(tmp_path, server, from_web(server) if kind == "web" else from_hub())
    (file,) = fetch(fetcher)
    assert file == tmp_path / "vae" / "a.safetensors"
    assert file.read_bytes() == CONTENT
    assert files_of(tmp_path) == {"a.safetensors"}
    assert len(server.data_requests()) >= 3  # in several ranges


def test_a_file_that_is_there_is_not_asked_for(tmp_path: Path, server: ModelServer) -> None:
    fetcher = fetcher_for(tmp_path, server, from_web(server))
    fetch(fetcher)
    server.requests.clear()
    fetch(fetcher)
    assert server.requests == []


def test_a_token_goes_to_the_hub_and_to_nobody_else(tmp_path: Path, server: ModelServer) -> None:
    server.gated.add("org/repo")
    fetch(fetcher_for(tmp_path, server, from_hub(), token=TOKEN))
    assert server.tokens
    assert all("/resolve/" in path for path, _ in server.tokens)  # the redirect leads to another host


def test_a_model_without_a_digest_is_checked_by_what_the_hub_says(tmp_path: Path, server: ModelServer) -> None:
    known = from_hub()
    del known["sha256"], known["size"]
    (file,) = fetch(fetcher_for(tmp_path, server, known))
    assert file.read_bytes() == CONTENT


def test_signed_links_that_expire_are_asked_for_again(tmp_path: Path, server: ModelServer) -> None:
    fetcher = fetcher_for(tmp_path, server, from_hub())
    server.cut = [0.5]
    server.pace = 0.002
    ender = threading.Timer(0.3, lambda: setattr(server, "signatures", server.signatures + 5))
    server.valid = 3
    ender.start()
    (file,) = fetch(fetcher)
    assert file.read_bytes() == CONTENT
    assert server.signatures > 6


def test_a_server_without_ranges_serves_too(tmp_path: Path, server: ModelServer) -> None:
    server.has_ranges = False
    server.cut = [0.5]
    (file,) = fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert file.read_bytes() == CONTENT


def test_a_set_of_several_files_comes_at_once(tmp_path: Path, server: ModelServer) -> None:
    server.files["b.safetensors"] = other = weights(1_000_000, seed=2)
    known = entry("b", other, {"url": f"{server.url}/files/b.safetensors"}, folder="loras")
    files = fetch(fetcher_for(tmp_path, server, from_web(server), known), "a", "b")
    assert [file.read_bytes() for file in files] == [CONTENT, other]


def test_through_a_linked_folder_the_file_lands_where_the_link_leads(tmp_path: Path, server: ModelServer) -> None:
    elsewhere, folder = tmp_path / "disk2", tmp_path / "models"
    elsewhere.mkdir()
    folder.mkdir()
    (folder / "vae").symlink_to(elsewhere)
    fetch(fetcher_for(folder, server, from_web(server)))
    assert (elsewhere / "a.safetensors").read_bytes() == CONTENT


# --- It breaks, and goes on ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["web", "hub"])
def test_connections_cut_at_the_half_go_on_from_there(tmp_path: Path, server: ModelServer, kind: str) -> None:
    server.cut = [0.5, 0.5, 0.5]
    (file,) = fetch(fetcher_for(tmp_path, server, from_web(server) if kind == "web" else from_hub()))
    assert file.read_bytes() == CONTENT
    assert server.sent < 1.2 * len(CONTENT)


def test_busy_servers_are_asked_again_when_they_say(tmp_path: Path, server: ModelServer) -> None:
    server.statuses = [(429, {"Retry-After": "1"}), (503, {}), (429, {"RateLimit": '"resolver";r=0;t=1'})]
    started = time.monotonic()
    (file,) = fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert file.read_bytes() == CONTENT
    assert time.monotonic() - started >= 2


def test_a_server_that_stays_busy_is_given_up(tmp_path: Path, server: ModelServer) -> None:
    server.statuses = [(503, {"Retry-After": "0"})] * 50
    with pytest.raises(ModelFetchFailed, match=r"a\.safetensors: .* status 503; tried 5 times"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))


def test_a_stall_is_broken_off_and_asked_anew(tmp_path: Path, server: ModelServer) -> None:
    server.stall = [60.0] * 3  # one a part
    (file,) = fetch(fetcher_for(tmp_path, server, from_web(server), stall=0.5))
    assert file.read_bytes() == CONTENT


def test_stalls_without_end_end_it_and_what_came_is_kept(tmp_path: Path, server: ModelServer) -> None:
    server.stall = [60.0] * 1000
    with pytest.raises(ModelFetchFailed, match="closed the connection; tried 5 times"):
        fetch(fetcher_for(tmp_path, server, from_web(server), stall=0.5))
    assert {"a.safetensors.partial", "a.safetensors.partial.parts"} == files_of(tmp_path)
    server.stall = []
    (file,) = fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert file.read_bytes() == CONTENT


def test_nothing_but_a_drip_is_a_stall(tmp_path: Path, server: ModelServer) -> None:
    server.has_ranges = False
    server.pace = 0.6  # 64 KB in more than the time of a stall
    with pytest.raises(ModelFetchFailed, match=r"no data for 0\.5 s, twice"):
        fetch(fetcher_for(tmp_path, server, from_web(server), stall=0.5))


def run_apart(folder: Path, server: ModelServer, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`python -m src.models fetch a` with a manifest of its own."""
    import json

    manifest = folder.parent / "manifest.json"
    if not manifest.exists():  # another process may be reading it
        manifest.write_text(json.dumps({"models": [from_web(server)]}))
    return subprocess.Popen(
        [sys.executable, "-m", "src.models", "fetch", "a", "--folder", str(folder)],
        cwd=ROOT,
        env={**os.environ, "MODELS_MANIFEST": str(manifest), "TRUSTED_HOSTS": server.host, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_process_killed_in_the_middle_is_gone_on_with_by_the_next(tmp_path: Path, server: ModelServer) -> None:
    folder = tmp_path / "models"
    server.pace = 0.05
    process = run_apart(folder, server)
    parts = parts_of(folder / "vae" / "a.safetensors")
    end = time.monotonic() + 30
    while not (parts.exists() and len(parts.read_text().splitlines()) > 1):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()
    assert (folder / "vae" / "a.safetensors.lock").exists()
    server.pace, before = 0.0, server.sent
    (file,) = fetch(replace(fetcher_for(folder, server, from_web(server)), limits=TransferLimits()))
    assert file.read_bytes() == CONTENT
    assert server.sent - before < len(CONTENT)
    assert files_of(folder) == {"a.safetensors"}


def test_two_workers_that_want_the_same_file_fetch_it_once(tmp_path: Path, server: ModelServer) -> None:
    folder = tmp_path / "models"
    server.pace = 0.002
    processes = [run_apart(folder, server) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert (folder / "vae" / "a.safetensors").read_bytes() == CONTENT
    assert server.sent < 1.1 * len(CONTENT)


def test_ctrl_c_ends_it_at_once_and_what_came_is_kept(tmp_path: Path, server: ModelServer) -> None:
    import signal

    folder = tmp_path / "models"
    server.stall = [60.0] * 100  # so that no slow machine has it all before the signal
    process = run_apart(folder, server)
    parts = parts_of(folder / "vae" / "a.safetensors")
    end = time.monotonic() + 30
    while not parts.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert files_of(folder) == {"a.safetensors.partial", "a.safetensors.partial.parts"}


def test_who_no_longer_waits_ends_it(tmp_path: Path, server: ModelServer) -> None:
    server.pace, stop = 0.05, threading.Event()

    def check() -> None:
        if stop.is_set():
            raise JobCancelled("the job was cancelled")

    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    with pytest.raises(JobCancelled):
        fetch(fetcher_for(tmp_path, server, from_web(server)), check=check)
    assert time.monotonic() - started < 10


def test_a_server_that_says_nothing_at_all_is_not_waited_for(tmp_path: Path, server: ModelServer) -> None:
    server.is_silent = True
    started = time.monotonic()
    with pytest.raises(ModelFetchFailed, match=r"no data for 0\.5 s, twice"):
        fetch(fetcher_for(tmp_path, server, from_web(server), stall=0.5))

    def check() -> None:
        if time.monotonic() - started > 3:
            raise JobCancelled("the job was cancelled")

    with pytest.raises(JobCancelled):
        fetch(fetcher_for(tmp_path, server, from_web(server), stall=100), check=check)
    assert time.monotonic() - started < 20


def test_a_server_that_ends_each_connection_costs_no_more_of_them(tmp_path: Path, server: ModelServer) -> None:
    server.closes = True
    fetcher = fetcher_for(tmp_path, server, from_web(server))
    most = [0]

    def check() -> None:
        most[0] = max(most[0], len(list(Path("/proc/self/fd").iterdir())))

    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    server.pace = 0.001
    fetch(replace(fetcher, limits=TransferLimits(20.0, 1 << 17)), check=check)  # 77 ranges
    assert most[0] - before < 40


def test_a_range_that_was_not_asked_for_is_not_taken(tmp_path: Path, server: ModelServer) -> None:
    server.shift = 5
    with pytest.raises(ModelFetchFailed, match="returned a different range than requested; tried 5 times"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))


def test_a_server_that_does_not_say_how_large_a_file_is_is_told_at_once(tmp_path: Path, server: ModelServer) -> None:
    server.has_ranges, server.has_length, server.pace = False, False, 0.5
    started = time.monotonic()
    with pytest.raises(ModelFetchFailed, match="does not report the size of the file"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert time.monotonic() - started < 20


def test_a_redirect_to_nonsense_is_told(tmp_path: Path, server: ModelServer) -> None:
    server.statuses = [(302, {"Location": "https://["})]
    with pytest.raises(ModelFetchFailed, match="redirects to an invalid URL"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))


def test_a_bad_answer_does_not_cost_what_came_before(tmp_path: Path, server: ModelServer) -> None:
    fetcher = fetcher_for(tmp_path, server, from_web(server))
    server.cut = [0.3] * 1000
    with pytest.raises(ModelFetchFailed):
        fetch(fetcher)
    server.cut, server.page = [], True
    with pytest.raises(ModelCorrupt, match="web page"):
        fetch(fetcher)
    server.page, before = False, server.sent
    (file,) = fetch(fetcher)
    assert file.read_bytes() == CONTENT
    assert server.sent - before < len(CONTENT)


def test_names_with_blanks_are_reached(tmp_path: Path, server: ModelServer) -> None:
    server.files["my lora #1.safetensors"] = server.files["a.safetensors"]
    source = {"repository": "org/repo", "revision": COMMIT, "path": "my lora #1.safetensors"}
    fetcher = fetcher_for(tmp_path, server, entry("a", CONTENT, source, file="my lora.safetensors"))
    (file,) = fetch(fetcher)
    assert file.read_bytes() == CONTENT


# --- It is not what it should be -----------------------------------------------------------------------


def test_a_wrong_digest_is_refused_and_not_kept(tmp_path: Path, server: ModelServer) -> None:
    with pytest.raises(ModelCorrupt, match=r"a\.safetensors is not the expected file: its SHA-256 is [0-9a-f]{64}"):
        fetch(fetcher_for(tmp_path, server, from_web(server, sha256="0" * 64)))
    assert files_of(tmp_path) == set()


def test_a_part_of_an_earlier_run_that_is_wrong_costs_a_second_try_only(tmp_path: Path, server: ModelServer) -> None:
    fetcher = fetcher_for(tmp_path, server, from_web(server))
    server.cut = [0.1] * 1000
    with pytest.raises(ModelFetchFailed):
        fetch(fetcher)
    server.cut = []
    target = fetcher.places.target_of(fetcher.manifest.model("a"))
    head = parts_of(target).read_text().splitlines()[0]
    parts_of(target).write_text(f"{head}\n0 4194304\n")  # of which nothing is true
    (file,) = fetch(fetcher)
    assert file.read_bytes() == CONTENT


def test_a_file_of_another_size_is_refused_before_it_is_fetched(tmp_path: Path, server: ModelServer) -> None:
    with pytest.raises(ModelCorrupt, match=r"has 10,000,0\d\d bytes there, but should have 5"):
        fetch(fetcher_for(tmp_path, server, from_web(server, size=5)))
    assert server.sent < 100


def test_a_short_file_is_no_model(tmp_path: Path, server: ModelServer) -> None:
    server.files["a.safetensors"] = CONTENT[:-1000]
    known = from_web(server, size=len(CONTENT) - 1000)
    known["sha256"] = server.sha256("a.safetensors")  # even if the manifest wants it so
    with pytest.raises(ModelCorrupt, match=r"its tensors need 10,000,000 bytes, but it has 9,999,000"):
        fetch(fetcher_for(tmp_path, server, known))


def test_a_web_page_in_place_of_a_file_is_told(tmp_path: Path, server: ModelServer) -> None:
    server.page = True
    with pytest.raises(ModelCorrupt, match="returned a web page instead of the file"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))
    server.page = False
    server.files["a.safetensors"] = page = b"<!DOCTYPE html><html>please log in</html>"  # as a binary
    with pytest.raises(ModelCorrupt, match="it is a web page"):
        fetch(fetcher_for(tmp_path, server, entry("a", page, {"url": f"{server.url}/files/a.safetensors"})))
    assert files_of(tmp_path) == set()


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no token": ({}, "", r"accept its licence at http://\S+/org/repo, and set HF_TOKEN"),
    "a token without the right": ({}, "hf_bad", r"accept its licence at http://\S+/org/repo with the account of HF"),
    "another that needs none": ({"instead": "ae"}, "", r"or use ae \(vae/ae\.safetensors\), which is not gated"),
}


@pytest.mark.parametrize(("changes", "token", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_gated_model_says_which_licence_or_which_other_model(
    tmp_path: Path, server: ModelServer, changes: dict[str, Any], token: str, said: str
) -> None:
    server.gated.add("org/repo")
    with pytest.raises(ModelGated, match=said) as caught:
        fetch(fetcher_for(tmp_path, server, from_hub(gated=True, **changes), token=token))
    assert "hf_bad" not in str(caught.value)
    assert not any(line.startswith("GET /files/") for line in server.requests)


@pytest.mark.parametrize("kind", ["web", "hub"])
def test_a_file_that_is_gone_says_that_its_entry_is_old(tmp_path: Path, server: ModelServer, kind: str) -> None:
    server.files.clear()
    with pytest.raises(ModelFetchFailed, match="no longer has this file; its entry in the manifest"):
        fetch(fetcher_for(tmp_path, server, from_web(server) if kind == "web" else from_hub()))


def test_a_web_address_that_is_refused_is_told(tmp_path: Path, server: ModelServer) -> None:
    server.statuses = [(403, {})] * 5
    with pytest.raises(ModelGated, match=r"127\.0\.0\.1:\d+ refuses it \(status 403\)"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))


def test_a_private_or_plain_address_needs_the_operators_word(tmp_path: Path, server: ModelServer) -> None:
    fetcher = fetcher_for(tmp_path, server, from_web(server))
    strict = Fetcher(fetcher.places, fetcher.manifest, fetcher.hub, FetchRules())
    with pytest.raises(ModelFetchFailed, match="must begin with https://"):
        fetch(strict)
    assert server.requests == []


def test_one_model_that_fails_does_not_keep_the_others(tmp_path: Path, server: ModelServer) -> None:
    server.files["b.safetensors"] = other = weights(1000, seed=2)
    known = entry("b", other, {"url": f"{server.url}/files/b.safetensors"})
    bad = from_web(server, sha256="0" * 64)
    with pytest.raises(ModelCorrupt):
        fetch(fetcher_for(tmp_path, server, bad, known), "a", "b")
    assert files_of(tmp_path) == {"b.safetensors"}


# --- The place where it goes ---------------------------------------------------------------------------


def test_a_clash_keeps_no_other_model(tmp_path: Path, server: ModelServer) -> None:
    server.files["b.safetensors"] = other = weights(1000, seed=2)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "a.safetensors").write_bytes(weights(500))
    known = entry("b", other, {"url": f"{server.url}/files/b.safetensors"})
    with pytest.raises(ModelFetchFailed, match="is a different file"):
        fetch(fetcher_for(tmp_path, server, from_web(server), known), "a", "b")
    assert (tmp_path / "vae" / "b.safetensors").read_bytes() == other


def test_another_file_of_the_same_name_is_left_alone(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "vae").mkdir()
    mine = tmp_path / "vae" / "a.safetensors"
    mine.write_bytes(weights(500))
    with pytest.raises(ModelFetchFailed, match=r"vae/a\.safetensors exists, but is a different file.*Two models have"):
        fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert mine.read_bytes() == weights(500)


def test_two_models_of_one_name_in_two_folders_do_not_take_each_others_place(
    tmp_path: Path, server: ModelServer
) -> None:
    server.files["b.safetensors"] = other = weights(3000, seed=3)
    whole = from_web(server, folder="checkpoints", file="flux1-dev-fp8.safetensors")
    part = entry(
        "b", other, {"url": f"{server.url}/files/b.safetensors"}, folder="diffusion_models",
        file="flux1-dev-fp8.safetensors",
    )  # fmt: skip
    fetcher = fetcher_for(tmp_path, server, whole, part)
    fetch(fetcher, "a")
    assert fetcher.missing([fetcher.manifest.model("b")])  # although a file of its name lies among checkpoints
    files = fetch(fetcher, "a", "b")
    assert [file.read_bytes() for file in files] == [CONTENT, other]


def test_a_cut_file_that_is_there_is_replaced(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "a.safetensors").write_bytes(CONTENT[:9999])
    (file,) = fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert file.read_bytes() == CONTENT


def test_too_little_space_is_told_before_anything_is_fetched(tmp_path: Path, server: ModelServer) -> None:
    known = from_web(server, size=10**15)
    with pytest.raises(NoSpaceForModels, match=r"a\.safetensors need 1000000\.2 GB, but \d+\.\d GB are free"):
        fetch(fetcher_for(tmp_path, server, known))
    assert server.requests == []


def mounted(folder: Path, options: str) -> Iterator[Path]:
    result = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True)
    if result.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "small").mkdir()
    yield from mounted(tmp_path / "small", "size=6m")


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "fixed").mkdir()
    yield from mounted(tmp_path / "fixed", "ro")


def test_a_disk_that_fills_up_is_told(small_disk: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_room, "check_space", lambda *_: None)  # others may fill it meanwhile
    with pytest.raises(NoSpaceForModels, match=r"no space left for a\.safetensors"):
        fetch(fetcher_for(small_disk, server, from_web(server)))


def test_a_volume_that_cannot_be_written_is_told(read_only_disk: Path, server: ModelServer) -> None:
    with pytest.raises(ModelFetchFailed, match=r"cannot be written .*Read-only file system.*MODELS_DIR"):
        fetch(fetcher_for(read_only_disk, server, from_web(server)))


def test_errors_of_the_disk_are_put_in_words() -> None:
    from src.models.partial import disk_errors

    for code, kind in ((errno.EDQUOT, NoSpaceForModels), (errno.EACCES, ModelFetchFailed)):
        with pytest.raises(kind), disk_errors(Path("/x/a.safetensors")):
            raise OSError(code, os.strerror(code))


def test_no_message_tells_a_folder_of_the_worker(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "vae").write_text("a file where a folder should be")
    with pytest.raises(WorkerError) as caught:
        fetch(fetcher_for(tmp_path, server, from_web(server)))
    assert str(tmp_path) not in str(caught.value)


def test_the_partial_file_lies_beside_its_target() -> None:
    model = Model.model_validate(from_hub())
    places = Places((Path("/m"),), Path("/m"))
    assert partial_of(places.target_of(model)).parent == places.target_of(model).parent
