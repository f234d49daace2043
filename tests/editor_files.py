"""Workflows as the editor saves them, one for every shape that conversion knows.

What the editor itself makes of them stands in `editor_exports.json`, written by
`python -m maintenance.editor_comparison --fixtures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def saved_node(
    node_id: int | str,
    kind: str,
    values: Any = None,
    inputs: Mapping[str, tuple[str, int | None]] | None = None,
    outputs: Mapping[str, str] | None = None,
    **more: Any,
) -> Json:
    """A node: `inputs` are name to (type, link), with `=` before the name of one that is a widget too."""
    sockets = []
    for name, (socket_type, link) in (inputs or {}).items():
        plain = name.removeprefix("=")
        widget = {"widget": {"name": plain}} if name != plain else {}
        sockets.append({"name": plain, "type": socket_type, "link": link, **widget})
    return {
        "id": node_id,
        "type": kind,
        "pos": [0, 0],
        "size": [200, 100],
        "flags": {},
        "order": node_id if isinstance(node_id, int) else 0,
        "mode": 0,
        "inputs": sockets,
        "outputs": [{"name": name, "type": t, "links": []} for name, t in (outputs or {}).items()],
        "properties": {},
        **({} if values is None else {"widgets_values": values}),
        **more,
    }


def saved(nodes: list[Json], links: list[list[Any]], **more: Any) -> Json:
    """A file of version 0.4; the links of its outputs are filled in."""
    by_id = {node["id"]: node for node in nodes}
    for link in links:
        if link[1] in by_id and link[2] < len(by_id[link[1]]["outputs"]):
            by_id[link[1]]["outputs"][link[2]]["links"].append(link[0])
    ids = [node["id"] for node in nodes if isinstance(node["id"], int)]
    return {
        "last_node_id": max(ids, default=0),
        "last_link_id": max((link[0] for link in links), default=0),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
        **more,
    }


def empty(node_id: int, **more: Any) -> Json:
    """A plain picture."""
    return saved_node(node_id, "EmptyImage", [64, 64, 1, 255], outputs={"IMAGE": "IMAGE"}, **more)


def invert(node_id: int, link: int | None, **more: Any) -> Json:
    """A picture inverted."""
    return saved_node(node_id, "ImageInvert", [], {"image": ("IMAGE", link)}, {"IMAGE": "IMAGE"}, **more)


def save(node_id: int, link: int | None, prefix: str = "x", **more: Any) -> Json:
    """A picture saved."""
    return saved_node(node_id, "SaveImage", [prefix], {"images": ("IMAGE", link)}, **more)


# --- Shapes ---------------------------------------------------------------------------------------------


def generative() -> Json:
    """The usual chain, each widget with its value, the seed with what becomes of it afterwards."""
    return saved(
        [
            saved_node(
                4,
                "CheckpointLoaderSimple",
                ["sd.safetensors"],
                outputs={"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"},
            ),
            saved_node(
                6, "CLIPTextEncode", ["a cat\non a mat"], {"clip": ("CLIP", 3)}, {"CONDITIONING": "CONDITIONING"}
            ),
            saved_node(7, "CLIPTextEncode", ["blur"], {"clip": ("CLIP", 5)}, {"CONDITIONING": "CONDITIONING"}),
            saved_node(5, "EmptyLatentImage", [512, 768, 1], outputs={"LATENT": "LATENT"}),
            saved_node(
                3,
                "KSampler",
                [42, "randomize", 20, 7.5, "sample_euler", "normal", 1],
                {
                    "model": ("MODEL", 1),
                    "positive": ("CONDITIONING", 4),
                    "negative": ("CONDITIONING", 6),
                    "latent_image": ("LATENT", 2),
                },
                {"LATENT": "LATENT"},
                title="Sampler",
            ),
            saved_node(8, "VAEDecode", [], {"samples": ("LATENT", 7), "vae": ("VAE", 8)}, {"IMAGE": "IMAGE"}),
            save(9, 9, "%Sampler.seed%_%width%_%no.such%"),
        ],
        [
            [1, 4, 0, 3, 0, "MODEL"],
            [2, 5, 0, 3, 3, "LATENT"],
            [3, 4, 1, 6, 0, "CLIP"],
            [4, 6, 0, 3, 1, "CONDITIONING"],
            [5, 4, 1, 7, 0, "CLIP"],
            [6, 7, 0, 3, 2, "CONDITIONING"],
            [7, 3, 0, 8, 0, "LATENT"],
            [8, 4, 2, 8, 1, "VAE"],
            [9, 8, 0, 9, 0, "IMAGE"],
        ],
    )


def with_texts() -> Json:
    """Dynamic prompts whose choice makes no difference, comments, an escaped brace."""
    texts = ["{a|a} cat // what", "/* no */ {{b|b}|b}", "\\{c\\} {d}"]
    nodes = [saved_node(1, "CLIPLoader", ["c.safetensors", "flux", "default"], outputs={"CLIP": "CLIP"})]
    links: list[list[Any]] = []
    for number, text in enumerate(texts, 2):
        nodes.append(
            saved_node(number, "CLIPTextEncode", [text], {"clip": ("CLIP", number)}, {"CONDITIONING": "CONDITIONING"})
        )
        links.append([number, 1, 0, number, 0, "CLIP"])
    return saved(nodes, links)


def with_inputs_for_widgets() -> Json:
    """Widgets that are connected: each keeps its place among the values."""
    return saved(
        [
            saved_node(1, "PrimitiveInt", [77, "fixed"], outputs={"INT": "INT"}),
            saved_node(
                2, "EmptyImage", [64, 32, 1, 5], {"=height": ("INT", 1), "=color": ("INT", 2)}, {"IMAGE": "IMAGE"}
            ),
            save(3, 3),
        ],
        [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 2, 1, "INT"], [3, 2, 0, 3, 0, "IMAGE"]],
    )


def with_primitive() -> Json:
    """A primitive node: its own value goes before what its targets were saved with."""
    return saved(
        [
            saved_node(1, "PrimitiveNode", [96, "fixed"], outputs={"INT": "INT"}),
            saved_node(
                2, "EmptyImage", [64, 32, 1, 5], {"=width": ("INT", 1), "=height": ("INT", 2)}, {"IMAGE": "IMAGE"}
            ),
            saved_node(4, "PrimitiveNode", ["named"], outputs={"STRING": "STRING"}),
            saved_node(3, "SaveImage", ["stale"], {"images": ("IMAGE", 3), "=filename_prefix": ("STRING", 4)}),
        ],
        [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 2, 1, "INT"], [3, 2, 0, 3, 0, "IMAGE"], [4, 4, 0, 3, 1, "STRING"]],
    )


def with_reroutes() -> Json:
    """Two of them in a row, and notes."""
    return saved(
        [
            empty(1),
            saved_node(2, "Reroute", None, {"": ("*", 1)}, {"": "IMAGE"}),
            saved_node(3, "Reroute", None, {"": ("*", 2)}, {"": "IMAGE"}),
            save(4, 3),
            saved_node(5, "Note", ["look"]),
            saved_node(6, "MarkdownNote", ["# look"]),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "IMAGE"]],
    )


def with_muted() -> Json:
    """A muted node goes, and with it the links to it."""
    return saved(
        [empty(1), invert(2, 1, mode=2), save(3, 2), save(4, 3, "y"), save(5, 4, "z", mode=2)],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 1, 0, 4, 0, "IMAGE"], [4, 1, 0, 5, 0, "IMAGE"]],
    )


def with_bypassed() -> Json:
    """Bypassed nodes hand on what fits: by place, by type, through several, and nothing where nothing fits."""
    lora: Json = {
        "values": ["l.safetensors", 1, 1],
        "outputs": {"MODEL": "MODEL", "CLIP": "CLIP"},
        "mode": 4,
    }
    return saved(
        [
            saved_node(
                1,
                "CheckpointLoaderSimple",
                ["sd.safetensors"],
                outputs={"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"},
            ),
            saved_node(2, "LoraLoader", inputs={"model": ("MODEL", 1), "clip": ("CLIP", 2)}, **lora),
            saved_node(3, "LoraLoader", inputs={"model": ("MODEL", 3), "clip": ("CLIP", 4)}, **lora),
            saved_node(4, "CLIPTextEncode", ["a"], {"clip": ("CLIP", 5)}, {"CONDITIONING": "CONDITIONING"}),
            saved_node(5, "ModelSamplingFlux", [1.15, 0.5, 1024, 1024], {"model": ("MODEL", 6)}, {"MODEL": "MODEL"}),
            saved_node(
                6, "VAEDecode", [], {"samples": ("LATENT", None), "vae": ("VAE", 7)}, {"IMAGE": "IMAGE"}, mode=4
            ),
            save(7, 8),
            empty(8),
            saved_node(
                9,
                "ImageBatch",
                [],
                {"image1": ("IMAGE", 9), "image2": ("IMAGE", None)},
                {"IMAGE": "IMAGE"},
                mode=4,
            ),
            save(10, 10, "batch"),
        ],
        [
            [1, 1, 0, 2, 0, "MODEL"],
            [2, 1, 1, 2, 1, "CLIP"],
            [3, 2, 0, 3, 0, "MODEL"],
            [4, 2, 1, 3, 1, "CLIP"],
            [5, 3, 1, 4, 0, "CLIP"],
            [6, 3, 0, 5, 0, "MODEL"],
            [7, 1, 2, 6, 1, "VAE"],
            [8, 6, 0, 7, 0, "IMAGE"],
            [9, 8, 0, 9, 0, "IMAGE"],
            [10, 9, 0, 10, 0, "IMAGE"],
        ],
    )


def with_old_values() -> Json:
    """Values that are too few or too many, and yet tell which is which: of buttons, and of a newer last widget."""
    return saved(
        [
            saved_node(1, "LoadImage", ["a.png"], outputs={"IMAGE": "IMAGE", "MASK": "MASK"}),
            saved_node(2, "LoadImage", ["b.png", "image", ""], outputs={"IMAGE": "IMAGE", "MASK": "MASK"}),
            saved_node(3, "SaveImage", None, {"images": ("IMAGE", 1)}),
            saved_node(4, "SaveImage", None, {"images": ("IMAGE", 2)}),
            saved_node(5, "UNETLoader", ["u.safetensors", "default"], outputs={"MODEL": "MODEL"}),
            saved_node(6, "DifferentialDiffusion", [], {"model": ("MODEL", 3)}, {"MODEL": "MODEL"}),
        ],
        [[1, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 4, 0, "IMAGE"], [3, 5, 0, 6, 0, "MODEL"]],
    )


def with_link_objects() -> Json:
    """Version 1: links are objects."""
    file = with_reroutes()
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    state = {"lastGroupId": 0, "lastNodeId": 9, "lastLinkId": 9, "lastRerouteId": 0}
    return {
        **file,
        "version": 1,
        "state": state,
        "links": [dict(zip(names, link, strict=True)) for link in file["links"]],
    }


_INNER, _OUTER = "6f0d9c1e-0000-4000-8000-000000000001", "6f0d9c1e-0000-4000-8000-000000000002"


def _end(node_id: int) -> Json:
    return {"id": node_id, "bounding": [0, 0, 100, 60]}


def _link(link_id: int, origin: int, slot: int, target: int, target_slot: int, kind: str) -> Json:
    return {
        "id": link_id,
        "origin_id": origin,
        "origin_slot": slot,
        "target_id": target,
        "target_slot": target_slot,
        "type": kind,
    }


def _definition(
    subgraph_id: str, name: str, nodes: list[Json], links: list[Json], **ports: list[tuple[Any, ...]]
) -> Json:
    def port(number: int, told: tuple[Any, ...]) -> Json:
        return {"id": f"{subgraph_id[:-3]}{number}0{name[0]}", "name": told[0], "type": told[1], "linkIds": told[2]}

    return {
        "id": subgraph_id,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": 20, "lastLinkId": 20, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": _end(-10),
        "outputNode": _end(-20),
        "inputs": [port(number, told) for number, told in enumerate(ports.get("inputs", []))],
        "outputs": [port(number + 5, told) for number, told in enumerate(ports.get("outputs", []))],
        "widgets": [],
        "nodes": nodes,
        "links": links,
        "groups": [],
        "extra": {},
    }


def _scaling() -> Json:
    """A subgraph: a picture, scaled by a promoted factor, and inverted."""
    scale = saved_node(
        11,
        "ImageScaleBy",
        ["nearest-exact", 0.5],
        {"image": ("IMAGE", 1), "=scale_by": ("FLOAT", 2)},
        {"IMAGE": "IMAGE"},
    )
    scale["outputs"][0]["links"] = [3]
    last = invert(12, 3)
    last["outputs"][0]["links"] = [4]
    links = [
        _link(1, -10, 0, 11, 0, "IMAGE"),
        _link(2, -10, 1, 11, 1, "FLOAT"),
        _link(3, 11, 0, 12, 0, "IMAGE"),
        _link(4, 12, 0, -20, 0, "IMAGE"),
    ]
    inputs = [("image", "IMAGE", [1]), ("scale_by", "FLOAT", [2])]
    return _definition(_INNER, "Scaling", [scale, last], links, inputs=inputs, outputs=[("IMAGE", "IMAGE", [4])])


def _use(node_id: int, kind: str, link: int, values: list[Any], **more: Any) -> Json:
    inputs = {"image": ("IMAGE", link), "=scale_by": ("FLOAT", None)}
    return saved_node(node_id, kind, values, inputs, {"IMAGE": "IMAGE"}, **more)


def with_subgraph() -> Json:
    """One subgraph used twice, its promoted widget as it is inside."""
    return saved(
        [empty(1), _use(2, _INNER, 1, [0.5]), _use(3, _INNER, 2, [0.5]), save(4, 3)],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 3, 0, 4, 0, "IMAGE"]],
        definitions={"subgraphs": [_scaling()]},
    )


def _outer(value: float, **more: Any) -> Json:
    """A subgraph with the other one inside, whose widget it promotes again."""
    inner = _use(21, _INNER, 1, [value], **more)
    inner["inputs"][1]["link"] = 2
    inner["outputs"][0]["links"] = [3]
    links = [
        _link(1, -10, 0, 21, 0, "IMAGE"),
        _link(2, -10, 1, 21, 1, "FLOAT"),
        _link(3, 21, 0, -20, 0, "IMAGE"),
    ]
    inputs = [("image", "IMAGE", [1]), ("scale_by", "FLOAT", [2])]
    return _definition(_OUTER, "Outer", [inner], links, inputs=inputs, outputs=[("IMAGE", "IMAGE", [3])])


def with_nested_subgraphs() -> Json:
    """A subgraph in a subgraph."""
    return saved(
        [empty(1), _use(2, _OUTER, 1, [0.5]), save(4, 2)],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 4, 0, "IMAGE"]],
        definitions={"subgraphs": [_scaling(), _outer(0.5)]},
    )


def with_promoted_values() -> Json:
    """Subgraph nodes with values of their own, of a promoted widget and of one promoted twice."""
    return saved(
        [empty(1), _use(2, _INNER, 1, [0.25]), _use(3, _INNER, 2, [0.75]), _use(4, _OUTER, 3, [0.9]), save(5, 4)],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 3, 0, 4, 0, "IMAGE"], [4, 4, 0, 5, 0, "IMAGE"]],
        definitions={"subgraphs": [_scaling(), _outer(0.4)]},
    )


def with_inactive_subgraphs() -> Json:
    """A muted subgraph, a bypassed one, and one in which another is bypassed."""
    return saved(
        [
            empty(1),
            _use(2, _INNER, 1, [], mode=2),
            _use(3, _INNER, 2, [], mode=4),
            _use(4, _OUTER, 3, []),
            save(5, 4, "muted"),
            save(6, 5, "bypassed"),
            save(7, 6, "inside"),
        ],
        [
            [1, 1, 0, 2, 0, "IMAGE"],
            [2, 1, 0, 3, 0, "IMAGE"],
            [3, 1, 0, 4, 0, "IMAGE"],
            [4, 2, 0, 5, 0, "IMAGE"],
            [5, 3, 0, 6, 0, "IMAGE"],
            [6, 4, 0, 7, 0, "IMAGE"],
        ],
        definitions={"subgraphs": [_scaling(), _outer(0.5, mode=4)]},
    )


def with_linked_promoted_widget() -> Json:
    """A promoted widget that is connected, to a node and to a primitive."""
    first, second = _use(2, _INNER, 1, [0.25]), _use(3, _INNER, 2, [0.75])
    first["inputs"][1]["link"], second["inputs"][1]["link"] = 3, 4
    return saved(
        [
            empty(1),
            saved_node(7, "PrimitiveFloat", [0.6], outputs={"FLOAT": "FLOAT"}),
            saved_node(8, "PrimitiveNode", [0.3, "fixed"], outputs={"FLOAT": "FLOAT"}),
            first,
            second,
            save(5, 5),
        ],
        [
            [1, 1, 0, 2, 0, "IMAGE"],
            [2, 2, 0, 3, 0, "IMAGE"],
            [3, 7, 0, 2, 1, "FLOAT"],
            [4, 8, 0, 3, 1, "FLOAT"],
            [5, 3, 0, 5, 0, "IMAGE"],
        ],
        definitions={"subgraphs": [_scaling()]},
    )


def with_dynamic_inputs() -> Json:
    """Inputs of V3: as many as are connected, and those that a choice brings with it, one of them connected."""
    return saved(
        [
            empty(1),
            saved_node(2, "PrimitiveInt", [48, "fixed"], outputs={"INT": "INT"}),
            saved_node(
                3,
                "BatchImagesNode",
                [],
                {"images.image0": ("IMAGE", 1), "images.image1": ("IMAGE", 2), "images.image2": ("IMAGE", None)},
                {"IMAGE": "IMAGE"},
            ),
            saved_node(
                4,
                "ResizeImageMaskNode",
                ["scale dimensions", 32, 16, "center", "lanczos"],
                {
                    "input": ("IMAGE", 3),
                    "=resize_type": ("COMFY_DYNAMICCOMBO_V3", None),
                    "=resize_type.height": ("INT", 4),
                },
                {"resized": "IMAGE"},
            ),
            save(5, 5),
            saved_node(6, "BatchImagesNode", [], {"images.image0": ("IMAGE", 6)}, {"IMAGE": "IMAGE"}, mode=4),
            save(7, 7, "bypassed"),
        ],
        [
            [1, 1, 0, 3, 0, "IMAGE"],
            [2, 1, 0, 3, 1, "IMAGE"],
            [3, 3, 0, 4, 0, "IMAGE"],
            [4, 2, 0, 4, 2, "INT"],
            [5, 4, 0, 5, 0, "IMAGE"],
            [6, 1, 0, 6, 0, "IMAGE"],
            [7, 6, 0, 7, 0, "IMAGE"],
        ],
    )


def tiny_generative() -> Json:
    """`workflows.generative` as the editor would have saved it, encoders and sampler in a subgraph."""
    texts = [
        saved_node(
            number,
            "CLIPTextEncode",
            [text],
            {"clip": ("CLIP", number)},
            {"CONDITIONING": "CONDITIONING"},
            title="Prompt",
        )
        for number, text in ((30, "blurry"), (31, "a cat"))
    ]
    sockets = {"model": ("MODEL", 3), "positive": ("CONDITIONING", 4), "negative": ("CONDITIONING", 5)}
    sampler = saved_node(
        8,
        "KSampler",
        [1, "randomize", 2, 1.5, "euler", "simple", 1],
        {**sockets, "latent_image": ("LATENT", 6)},
        {"LATENT": "LATENT"},
    )
    links = [
        _link(30, -10, 0, 30, 0, "CLIP"),
        _link(31, -10, 0, 31, 0, "CLIP"),
        _link(3, -10, 1, 8, 0, "MODEL"),
        _link(4, 31, 0, 8, 1, "CONDITIONING"),
        _link(5, 30, 0, 8, 2, "CONDITIONING"),
        _link(6, -10, 2, 8, 3, "LATENT"),
        _link(7, 8, 0, -20, 0, "LATENT"),
    ]
    ports = [("clip", "CLIP", [30, 31]), ("model", "MODEL", [3]), ("latent", "LATENT", [6])]
    sampling = _definition(
        _INNER, "Sampling", [*texts, sampler], links, inputs=ports, outputs=[("LATENT", "LATENT", [7])]
    )
    return saved(
        [
            saved_node(1, "UNETLoader", ["tiny_sd3.safetensors", "default"], outputs={"MODEL": "MODEL"}),
            saved_node(2, "CLIPLoader", ["tiny_clip_l.safetensors", "sd3", "default"], outputs={"CLIP": "CLIP"}),
            saved_node(5, "EmptySD3LatentImage", [64, 64, 1], outputs={"LATENT": "LATENT"}),
            saved_node(
                6,
                _INNER,
                [],
                {"clip": ("CLIP", 1), "model": ("MODEL", 2), "latent": ("LATENT", 3)},
                {"LATENT": "LATENT"},
            ),
            saved_node(7, "VAELoader", ["tiny_taesd.safetensors"], outputs={"VAE": "VAE"}),
            saved_node(10, "VAEDecode", [], {"samples": ("LATENT", 4), "vae": ("VAE", 5)}, {"IMAGE": "IMAGE"}),
            save(9, 6, "gen"),
        ],
        [
            [1, 2, 0, 6, 0, "CLIP"],
            [2, 1, 0, 6, 1, "MODEL"],
            [3, 5, 0, 6, 2, "LATENT"],
            [4, 6, 0, 10, 0, "LATENT"],
            [5, 7, 0, 10, 1, "VAE"],
            [6, 10, 0, 9, 0, "IMAGE"],
        ],
        definitions={"subgraphs": [sampling]},
    )


FILES = {
    make.__name__: make
    for make in (
        generative,
        with_texts,
        with_inputs_for_widgets,
        with_primitive,
        with_reroutes,
        with_muted,
        with_bypassed,
        with_old_values,
        with_link_objects,
        with_subgraph,
        with_nested_subgraphs,
        with_promoted_values,
        with_inactive_subgraphs,
        with_linked_promoted_widget,
        with_dynamic_inputs,
    )
}
FRONTENDS = {"0.3.64": "1.27.10", "0.21.0": "1.43.18", "0.33.0": "1.49.6"}
"""The version of the editor that each ComfyUI brings: a file is converted as the version that saved it would."""
DIFFER = {
    # Older ones run what is inside of a muted subgraph, unless they have muted that too, as they do when asked to.
    ("0.3.64", "with_inactive_subgraphs"),
}
"""Where editors differ: of which version the export is not followed."""
