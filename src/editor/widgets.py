"""The widgets that the editor gives a node, in the order in which it saves their values.

Which inputs are widgets, and which add another widget after their own, follows the frontend's rules:
`control_after_generate` after a seed, a button after a list of uploads. Those additional widgets have a value in
`widgets_values`, but it is not sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..workflow.schemas import CUSTOM_COMBO, DYNAMIC_COMBO, InputSchema, NodeSchema, read_inputs

# Types of inputs for which the frontend itself has widgets. Inputs of other types are sockets.
_FRONTEND_TYPES = frozenset(
    {"INT", "FLOAT", "BOOLEAN", "STRING", "MARKDOWN", "COMBO", "COLOR", "TEXTAREA", "FILEUPLOAD", "CURVE"}
    | {"IMAGECOMPARE", "BOUNDING_BOX", "PAINTER", "BOUNDING_BOXES", "COLORS", "COMPOSITOR", "RANGE", "VIDEO_EDIT"}
    | {"CHART", "GALLERIA", "LIGHT_INFO_PREVIEW"}
)
IMAGE_COMPARE = "IMAGECOMPARE"
"""The type of a widget that shows two pictures of the last run: it is sent empty, though older files have a value."""
_AUDIO_RECORD = "AUDIO_RECORD"
_BROWSER_MADE = frozenset({"WEBCAM", "LOAD_3D", "LOAD_3D_ANIMATION"})
"""Types whose values the browser makes when it queues: a camera picture, a view of a 3D model."""
SEED_INPUTS = ("seed", "noise_seed")
"""Inputs that have a `control_after_generate` widget even if their class does not declare one."""
_UPLOADS = ("image_upload", "video_upload", "animated_image_upload", "audio_upload")
_MODEL_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
"""Endings of model files: these are valid values even if not in the list, because they may be downloaded later."""
CONTROL_VALUES = ("fixed", "increment", "decrement", "randomize", "increment-wrap", True, False)

SavedValues = Sequence[Any] | Mapping[str, Any]
"""The values of a node's widgets in the file: a list in the order of the widgets, or by name."""


@dataclass(frozen=True)
class Widget:
    """One widget: its name, its input's schema, whether its value is sent, and whether it is saved in the file."""

    name: str
    schema: InputSchema | None = None
    is_sent: bool = True
    is_saved: bool = True
    is_control: bool = False
    """Whether it is a `control_after_generate` widget: what happens to a seed after the run."""

    @property
    def kind(self) -> str:
        """The type of its value."""
        return widget_type_of(self.schema) if self.schema else ""

    @property
    def default(self) -> Any:
        """The value in a new node."""
        if self.schema is None:
            return ""
        default = self.schema.parameters.get("default")
        if default is not None and (default or self.kind != "COMBO"):
            return default
        if self.kind == "COMBO":
            return self.schema.options[0] if self.schema.options else None
        if self.kind == DYNAMIC_COMBO:
            return _first_option(self.schema)
        return {"INT": 0, "FLOAT": 0, "BOOLEAN": False, IMAGE_COMPARE: ["", ""]}.get(self.kind, "")

    def opened(self, value: Any) -> Any:
        """A saved value as the editor has it once the file is open: in place of nothing, the first option."""
        return self.default if value is None and self.kind == "COMBO" else value

    def fits(self, value: Any) -> bool:
        """Whether a value is possible for this widget; checked if the file has too few or too many values."""
        if self.is_control:
            return value in CONTROL_VALUES
        if self.kind in ("INT", "FLOAT"):
            return type(value) in (int, float)
        if self.schema is not None and self.schema.options is not None and not self.schema.is_file:
            return value in self.schema.options or str(value).lower().endswith(_MODEL_ENDINGS)
        return isinstance(value, {"BOOLEAN": bool, "STRING": str}.get(self.kind, object))


_CONTROL = "control_after_generate"
# Widgets that the frontend's scripts add to some classes: sent although no class declares them.
_SCRIPT_WIDGETS = {
    "Preview3D": Widget("image"),
    "Preview3DAnimation": Widget("image"),
    "SaveGLB": Widget("image"),
}
# Of a Custom Combo, whose options are widgets: one more is added as soon as the last one is used.
_MAX_OPTIONS = 1000


def widget_type_of(schema: InputSchema) -> str:
    """The type by which the editor chooses a widget."""
    widget_type = schema.parameters.get("widgetType")
    return widget_type if isinstance(widget_type, str) else schema.kind


def is_widget(schema: InputSchema) -> bool:
    """Whether an input has a widget (and a socket too), not only a socket."""
    kind = widget_type_of(schema)
    has_widget = kind in _FRONTEND_TYPES or kind in _BROWSER_MADE or kind in (_AUDIO_RECORD, DYNAMIC_COMBO)
    return has_widget and not schema.parameters.get("forceInput")


def needs_browser(schema: NodeSchema) -> bool:
    """Whether a node has values that only a browser can make."""
    return any(widget_type_of(config) in _BROWSER_MADE for config in schema.inputs.values())


def widgets_of(class_type: str, schema: NodeSchema, values: SavedValues) -> list[Widget]:
    """The widgets of a node class. `values` are the saved ones: the options chosen in dynamic combos add widgets."""
    found: list[Widget] = []
    for name, config in schema.inputs.items():
        if is_widget(config):
            found.extend(_with_added_widgets(name, config, values, len(found)))
    combos = [config for config in schema.inputs.values() if widget_type_of(config) == "COMBO"]
    if any(config.parameters.get(flag) for config in combos for flag in _UPLOADS):
        found.append(Widget("upload", is_sent=False))
    if class_type in _SCRIPT_WIDGETS:
        found.append(_SCRIPT_WIDGETS[class_type])
    if class_type == CUSTOM_COMBO:
        found.extend(_written_options(values[len(found) + 1 :] if isinstance(values, Sequence) else ()))
    return found


def _written_options(values: Sequence[Any]) -> Iterator[Widget]:
    """The place of the choice among the options, and the options up to the first empty one."""
    yield Widget("index")
    for number in range(1, _MAX_OPTIONS):
        yield Widget(f"option{number}")
        if number > len(values) or not values[number - 1]:
            return


def _with_added_widgets(name: str, config: InputSchema, values: SavedValues, index: int) -> Iterator[Widget]:
    yield Widget(name, config, is_saved=widget_type_of(config) != IMAGE_COMPARE)
    kind, control = widget_type_of(config), config.parameters.get("control_after_generate")
    control_widget = Widget(control if isinstance(control, str) else _CONTROL, is_sent=False, is_control=True)
    if kind == "INT" and (control or (control is None and name in SEED_INPUTS)):
        yield control_widget
    elif kind == "COMBO":
        if isinstance(remote := config.parameters.get("remote"), Mapping):
            yield Widget("Auto-refresh after generation", is_sent=False)
            if remote.get("refresh_button"):
                yield Widget("refresh")
        if control and not config.parameters.get("multi_select"):
            yield control_widget
            yield Widget("control_filter_list", is_sent=False)
    elif kind == "BOUNDING_BOX":
        yield from (Widget(f"{name} {part}", is_sent=False) for part in ("x", "y", "width", "height"))
    elif kind == _AUDIO_RECORD:
        yield Widget(f"{name} (button)", is_sent=False)
    elif kind == DYNAMIC_COMBO:
        yield from _option_widgets(name, config, values, index)


def _option_widgets(name: str, config: InputSchema, values: SavedValues, index: int) -> Iterator[Widget]:
    """The widgets that the chosen option of a dynamic combo adds; `index` is that of the combo's own value."""
    if isinstance(values, Mapping):
        chosen = values.get(name)
    else:
        chosen = values[index] if index < len(values) else _first_option(config)
    option = next((option for option in _options(config) if option.get("key") == chosen), {})
    for sub_name, sub in read_inputs(option.get("inputs") or {}).items():
        if is_widget(sub):
            for widget in _with_added_widgets(f"{name}.{sub_name}", sub, values, index + 1):
                index += 1
                yield widget


def unknown_choice(schema: NodeSchema, values: SavedValues) -> str:
    """Why the widgets of a node are unknown: a choice that brings widgets, and that its class does not offer here."""
    found: list[Widget] = []
    for name, config in schema.inputs.items():
        if widget_type_of(config) == DYNAMIC_COMBO and is_widget(config):
            chosen = values.get(name) if isinstance(values, Mapping) else next(iter(values[len(found) :]), None)
            if isinstance(chosen, str) and chosen not in [option.get("key") for option in _options(config)]:
                return (
                    f"its {name[:80]!r} is {chosen[:80]!r}, which its class does not offer in this ComfyUI; a newer "
                    "or an older version may"
                )
        if is_widget(config):
            found.extend(_with_added_widgets(name, config, values, len(found)))
    return ""


def _first_option(config: InputSchema) -> Any:
    """The option that is chosen in a new dynamic combo."""
    return next((option.get("key") for option in _options(config)), None)


def _options(config: InputSchema) -> list[Mapping[str, Any]]:
    """The options of a dynamic combo: `{"key", "inputs"}` each."""
    options = config.parameters.get("options")
    return [option for option in options if isinstance(option, Mapping)] if isinstance(options, list) else []


def index_of_choice(inputs: Mapping[str, Any], choice: Any) -> int:
    """The place of a Custom Combo's choice among its options, -1 if it is none of them."""
    options = [value for name, value in inputs.items() if name.startswith("option")]
    return options.index(choice) if choice in options else -1
