"""The widgets that the editor gives a node, in the order in which it saves their values.

Which inputs are widgets and which get another one behind them is the frontend's rule: `control_after_generate` behind
a seed, a button behind a list of uploads. The latter have a place in `widgets_values`, but are not sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..workflow.schemas import InputSchema, NodeSchema, read_inputs

# Types of inputs that are widgets without any node pack's help. Others are sockets.
_PLAIN = frozenset(
    {"INT", "FLOAT", "BOOLEAN", "STRING", "MARKDOWN", "COMBO", "COLOR", "TEXTAREA", "FILEUPLOAD", "CURVE"}
    | {"IMAGECOMPARE", "BOUNDING_BOX"}
)
_DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
_RECORDING = "AUDIO_RECORD"
_BROWSERS_OWN = frozenset({"WEBCAM", "LOAD_3D", "LOAD_3D_ANIMATION", "PAINTER"})
"""Their values are made by the browser when it queues: a picture of a camera, a view of a model, a painting."""
SEEDS = ("seed", "noise_seed")
"""Inputs that say what becomes of them after the run, though their class does not ask for that."""
_UPLOADS = ("image_upload", "video_upload", "animated_image_upload", "audio_upload")
_MODEL_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
"""Of files that may be fetched yet: the list of those that are here does not tell."""
_CONTROLS = ("fixed", "increment", "decrement", "randomize", "increment-wrap", True, False)

Saved = Sequence[Any] | Mapping[str, Any]
"""The values of a node's widgets in the file: in their order, or by name."""


@dataclass(frozen=True)
class Widget:
    """One widget: its name, the input that it is for, whether its value is sent and whether the file has it."""

    name: str
    schema: InputSchema | None = None
    is_sent: bool = True
    is_saved: bool = True
    is_control: bool = False
    """Whether it says what becomes of a seed after the run."""

    @property
    def kind(self) -> str:
        """The type of its value."""
        return kind_of(self.schema) if self.schema else ""

    @property
    def default(self) -> Any:
        """The value that a new one has."""
        if self.schema is None:
            return ""
        default = self.schema.parameters.get("default")
        if default is not None and (default or self.kind != "COMBO"):
            return default
        if self.kind == "COMBO":
            return self.schema.options[0] if self.schema.options else None
        if self.kind == _DYNAMIC_COMBO:
            return _first_option(self.schema)
        return {"INT": 0, "FLOAT": 0, "BOOLEAN": False, "IMAGECOMPARE": ["", ""]}.get(self.kind, "")

    def fits(self, value: Any) -> bool:
        """Whether a value can be this widget's: what it says where the file has too few values, or too many."""
        if self.is_control:
            return value in _CONTROLS
        if self.kind in ("INT", "FLOAT"):
            return type(value) in (int, float)
        if self.schema is not None and self.schema.options is not None and not self.schema.is_file:
            return value in self.schema.options or str(value).lower().endswith(_MODEL_ENDINGS)
        return isinstance(value, {"BOOLEAN": bool, "STRING": str}.get(self.kind, object))


_CONTROL = "control_after_generate"
# What scripts of the editor add to some classes: players and previews, sent although no class takes them.
_PLAYER = Widget("audioUI", is_saved=False)
_ADDED = {
    "LoadAudio": _PLAYER,
    "SaveAudio": _PLAYER,
    "SaveAudioMP3": _PLAYER,
    "SaveAudioOpus": _PLAYER,
    "PreviewAudio": _PLAYER,
    "PreviewAny": Widget("preview", is_saved=False),
    "Preview3D": Widget("image"),
    "Preview3DAnimation": Widget("image"),
    "SaveGLB": Widget("image"),
}


def kind_of(schema: InputSchema) -> str:
    """The type by which the editor chooses a widget."""
    widget_type = schema.parameters.get("widgetType")
    return widget_type if isinstance(widget_type, str) else schema.kind


def is_widget(schema: InputSchema) -> bool:
    """Whether an input is a widget, which has a socket too; else it is a socket only."""
    kind = kind_of(schema)
    known = kind in _PLAIN or kind in _BROWSERS_OWN or kind in (_RECORDING, _DYNAMIC_COMBO)
    return known and not schema.parameters.get("forceInput")


def needs_browser(schema: NodeSchema) -> bool:
    """Whether a node's values are made by a browser."""
    return any(kind_of(config) in _BROWSERS_OWN for config in schema.inputs.values())


def widgets_of(class_type: str, schema: NodeSchema, values: Saved) -> list[Widget]:
    """The widgets of a node class. `values` are those saved: on some of them depends which more there are."""
    found: list[Widget] = []
    for name, config in schema.inputs.items():
        if is_widget(config):
            found.extend(_with_followers(name, config, values, len(found)))
    if any(config.parameters.get(flag) for config in schema.inputs.values() for flag in _UPLOADS):
        found.append(Widget("upload", is_sent=False))
    if class_type in _ADDED:
        found.append(_ADDED[class_type])
    return found


def _with_followers(name: str, config: InputSchema, values: Saved, place: int) -> Iterator[Widget]:
    yield Widget(name, config)
    kind, control = kind_of(config), config.parameters.get("control_after_generate")
    behind = Widget(control if isinstance(control, str) else _CONTROL, is_sent=False, is_control=True)
    if kind == "INT" and (control or (control is None and name in SEEDS)):
        yield behind
    elif kind == "COMBO":
        if isinstance(remote := config.parameters.get("remote"), Mapping):
            yield Widget("Auto-refresh after generation", is_sent=False)
            if remote.get("refresh_button"):
                yield Widget("refresh")
        if control and not config.parameters.get("multi_select"):
            yield behind
            yield Widget("control_filter_list", is_sent=False)
    elif kind == "BOUNDING_BOX":
        yield from (Widget(f"{name} {part}", is_sent=False) for part in ("x", "y", "width", "height"))
    elif kind == _RECORDING:
        yield Widget(f"{name} (button)", is_sent=False)
    elif kind == _DYNAMIC_COMBO:
        yield from _chosen_widgets(name, config, values, place)


def _chosen_widgets(name: str, config: InputSchema, values: Saved, place: int) -> Iterator[Widget]:
    """The widgets that the chosen option of a dynamic combo brings with it; its own value is at that place."""
    if isinstance(values, Mapping):
        chosen = values.get(name)
    else:
        chosen = values[place] if place < len(values) else _first_option(config)
    option = next((option for option in _options(config) if option.get("key") == chosen), {})
    for sub_name, sub in read_inputs(option.get("inputs") or {}).items():
        if is_widget(sub):
            for widget in _with_followers(f"{name}.{sub_name}", sub, values, place + 1):
                place += 1
                yield widget


def _first_option(config: InputSchema) -> Any:
    """The option that a new dynamic combo has."""
    return next((option.get("key") for option in _options(config)), None)


def _options(config: InputSchema) -> list[Mapping[str, Any]]:
    """The options of a dynamic combo: `{"key", "inputs"}` each."""
    options = config.parameters.get("options")
    return [option for option in options if isinstance(option, Mapping)] if isinstance(options, list) else []
