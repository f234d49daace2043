"""`length` and `fps`: the frames of a video and of the audio beside it, and the frames per second of all that has them."""

from __future__ import annotations

from typing import Any

import pytest

from src.errors import AmbiguousOverrideTarget, NoOverrideTarget
from src.overrides import overridable_fields

from ..workflows import node
from .test_overrides import changed
from .test_places import diffusion


def wan(**nodes: dict[str, Any]) -> dict[str, Any]:
    """Wan's text to video: the latent has the length, `CreateVideo` the frames per second."""
    parts = {
        "n6": node("EmptyHunyuanLatentVideo", width=832, height=480, length=81, batch_size=1),
        "n40": node("CreateVideo", images=["8", 0], fps=16.0),
        "n9": node("SaveVideo", video=["40", 0], filename_prefix="x", format="auto", codec="auto"),
    }
    return diffusion(**{**parts, **nodes})


def test_the_length_is_that_of_the_latent_and_fps_that_of_the_video() -> None:
    assert changed(wan(), length=49, fps=24) == {"6.length": 49, "40.fps": 24}
    fields = {field.name: field.value for field in overridable_fields(wan())}
    assert (fields["length"], fields["fps"]) == (81, 16.0)


def test_image_to_video_has_its_length_too() -> None:
    size = {"width": 832, "height": 480, "length": 81, "batch_size": 1}
    workflow = wan(
        n6=node("Wan22ImageToVideoLatent", vae=["7", 0], start_image=["30", 0], **size),
        n30=node("LoadImage", image="a.png"),
    )
    assert changed(workflow, length=33) == {"6.length": 33}


def test_audio_beside_the_video_has_the_same_length_and_rate() -> None:
    workflow = wan(
        n6=node("LTXVConcatAVLatent", video_latent=["20", 0], audio_latent=["21", 0]),
        n20=node("EmptyLTXVLatentVideo", width=768, height=512, length=97, batch_size=1),
        n21=node("LTXVEmptyLatentAudio", frames_number=97, frame_rate=25, batch_size=1, audio_vae=["7", 0]),
        n40=node("CreateVideo", images=["8", 0], fps=25),
    )
    assert changed(workflow, length=121) == {"20.length": 121, "21.frames_number": 121}
    assert changed(workflow, fps=30) == {"21.frame_rate": 30, "40.fps": 30}


def test_a_primitive_that_holds_the_rate_gets_it() -> None:
    workflow = wan(n50=node("PrimitiveFloat", value=16.0), n40=node("CreateVideo", images=["8", 0], fps=["50", 0]))
    assert changed(workflow, fps=24) == {"50.value": 24}


def test_rates_that_differ_are_ambiguous_until_the_job_names_one() -> None:
    """Frames that were interpolated run faster than those that were sampled."""
    both = {
        "n42": node("CreateVideo", images=["8", 0], fps=32.0),
        "n43": node("SaveVideo", video=["42", 0], filename_prefix="y", format="auto", codec="auto"),
    }
    with pytest.raises(AmbiguousOverrideTarget):
        changed(wan(**both), fps=24)
    assert changed(wan(**both), fps=24, fps_node_id="42") == {"42.fps": 24}


def test_the_length_of_a_cut_is_none_of_the_video() -> None:
    workflow = wan(
        n42=node("ImageFromBatch", image=["8", 0], batch_index=0, length=1),
        n40=node("CreateVideo", images=["42", 0], fps=16.0),
    )
    assert changed(workflow, length=49) == {"6.length": 49}


def test_a_pack_that_keeps_the_length_in_its_embeddings() -> None:
    schemas_of_packs_are_unknown = wan(n6=node("EmptyLatentOfPack", width=64, height=64, num_frames=81))
    assert changed(schemas_of_packs_are_unknown, length=41) == {"6.num_frames": 41}


@pytest.mark.parametrize("override", [{"length": 9}, {"fps": 9.0}])
def test_an_image_has_neither(override: dict[str, Any]) -> None:
    with pytest.raises(NoOverrideTarget, match="a number of frames"):
        changed(diffusion(), **override)
