"""The fields of a job's `input`: types, limits, and the messages for values that do not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from ..clients import FOREIGN_FIELDS, PARTLY_USED, what_is_given
from ..errors import InvalidInput
from ..overrides import NODE_FIELDS
from ..settings import AnswerFormat, Delivery, ImageFormat
from .info_parts import INFO_PARTS, InfoPart

Action = Literal["run", "validate", "info"]

_MAX_SEED = 2**64 - 1
_QUOTED = r"^\s*[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?\s*$"
_NUMBER = re.compile(_QUOTED)


def _as_node_id(value: object) -> object:
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return str(number) if isinstance(number, int) and not isinstance(number, bool) else value


def _canonical(value: object) -> object:
    return "jpeg" if value == "jpg" else value


def _as_number(value: object) -> object:
    """A number as some clients write it: in quotes, or a whole one with a point."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        whole, _, rest = value.partition(".")
        value = int(whole) if not rest.strip().strip("0") and "e" not in whole.lower() else float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_seed(value: object) -> object:
    """A seed, or "random" for what other workers and the editor call so."""
    number = _as_number(value)
    is_random = number == -1 or (isinstance(value, str) and value.strip().lower() in ("random", "randomize"))
    return "random" if is_random else number


def _as_flag(value: object) -> object:
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


class _Lenient:
    """Marks a value that may come in other ways: `read` makes the usual one of them, `others` is their JSON schema."""

    def __init__(self, read: Callable[[object], object], *others: dict[str, Any]) -> None:
        self._read, self._others = read, others

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), *self._others]}


def _any_case(words: str) -> str:
    """A pattern for words in any case, as JSON schemas can have it."""
    letters = (f"[{c.upper()}{c}]" if c.isalpha() else c for c in words)
    return rf"^\s*{''.join(letters)}\s*$"


def _encodable(value: str) -> str:
    value.encode("utf-8")  # UnicodeEncodeError, a ValueError, for half a character (a lone surrogate)
    return value


_Text = Annotated[str, AfterValidator(_encodable)]
_Name = Annotated[_Text, Field(min_length=1, max_length=200)]
_Url = Annotated[_Text, Field(min_length=1, max_length=2000)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
_NodeId = Annotated[_Name, BeforeValidator(_as_node_id, json_schema_input_type=str | int)]
_IN_QUOTES = _Lenient(_as_number, {"type": "string", "pattern": _QUOTED})
_Side = Annotated[int, Field(ge=16, le=16384, multiple_of=8), _IN_QUOTES]
_LongestSide = Annotated[int, Field(ge=16, le=16384), _IN_QUOTES]
_Quality = Annotated[int, Field(ge=1, le=100), _IN_QUOTES]
_BatchSize = Annotated[int, Field(ge=1, le=4096), _IN_QUOTES]
_Length = Annotated[int, Field(ge=1, le=100_000), _IN_QUOTES]
_Fps = Annotated[float, Field(ge=1, le=240, allow_inf_nan=False), _IN_QUOTES]
_Steps = Annotated[int, Field(ge=1, le=10000), _IN_QUOTES]
_Seed = Annotated[
    Annotated[int, Field(ge=0, le=_MAX_SEED)] | Literal["random"],
    _Lenient(_as_seed, {"const": -1}, {"type": "string", "pattern": rf"{_QUOTED}|{_any_case('random(ize)?')}"}),
]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), _IN_QUOTES]
_UpTo100 = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), _IN_QUOTES]
_Strength = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False), _IN_QUOTES]
_Flag = Annotated[bool, _Lenient(_as_flag, {"type": "string", "pattern": _any_case("(true|false)")})]
_Format = Literal["png", "jpeg", "jpg", "webp", "avif", "original"]
_Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
_STRICT = ConfigDict(strict=True, extra="forbid")


class LoraFields(BaseModel):
    """One entry of `loras`."""

    model_config = _STRICT
    name: _Name
    strength: _Strength = 1.0
    strength_clip: _Strength | None = None
    url: _Url | None = None
    sha256: _Digest | None = None


class ModelFields(BaseModel):
    """One entry of `models`."""

    model_config = _STRICT
    folder: _Name
    name: _Name
    url: _Url
    sha256: _Digest | None = None


class FileFields(BaseModel):
    """One entry of `images` or `files`; unknown fields are reported in `warnings`."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        json_schema_extra={
            "oneOf": [
                {"required": [part], "properties": {part: {"type": "string", "minLength": 1}}}
                for part in ("image", "data", "url")
            ]
        },
    )
    name: _Name
    image: _Text | None = None
    data: _Text | None = None
    url: _Text | None = None


class OutputFields(BaseModel):
    """`output`."""

    model_config = _STRICT
    format: (
        Annotated[ImageFormat | Literal["original"], BeforeValidator(_canonical, json_schema_input_type=_Format)]
        | None
    ) = None
    quality: _Quality | None = None
    max_side: _LongestSide | None = None
    background: _Colour = "#ffffff"
    delivery: Delivery | None = None
    may_reencode: _Flag = False
    previews: _Flag = False
    live_previews: _Flag | None = None
    metadata: _Flag | None = None
    answer: AnswerFormat | None = None


class InputFields(BaseModel):
    """`input`; unknown fields are reported in `warnings`."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        json_schema_extra={
            "anyOf": [
                {"required": ["workflow"]},
                {"required": ["action"], "properties": {"action": {"const": "info"}}},
            ]
        },
    )

    action: Action = "run"
    parts: list[InfoPart] = []
    workflow: Annotated[Any, WithJsonSchema({"type": ["object", "string"], "minLength": 1})] = None
    prompt: _Text | None = None
    negative_prompt: _Text | None = None
    seed: _Seed | None = None
    width: _Side | None = None
    height: _Side | None = None
    batch_size: _BatchSize | None = None
    length: _Length | None = None
    fps: _Fps | None = None
    steps: _Steps | None = None
    cfg: _UpTo100 | None = None
    guidance: _UpTo100 | None = None
    denoise: _Share | None = None
    sampler_name: _Name | None = None
    scheduler: _Name | None = None
    loras: Annotated[list[LoraFields], Field(max_length=20)] = []
    prompt_node_id: _NodeId | None = None
    negative_prompt_node_id: _NodeId | None = None
    seed_node_id: _NodeId | None = None
    size_node_id: _NodeId | None = None
    batch_size_node_id: _NodeId | None = None
    length_node_id: _NodeId | None = None
    fps_node_id: _NodeId | None = None
    steps_node_id: _NodeId | None = None
    cfg_node_id: _NodeId | None = None
    guidance_node_id: _NodeId | None = None
    denoise_node_id: _NodeId | None = None
    sampler_name_node_id: _NodeId | None = None
    scheduler_node_id: _NodeId | None = None
    loras_node_id: _NodeId | None = None
    inputs: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    images: list[FileFields] = []
    files: list[FileFields] = []
    models: Annotated[list[ModelFields], Field(max_length=50)] = []
    output: OutputFields = OutputFields()
    extra_pnginfo: dict[str, Any] | None = None
    comfy_org_api_key: _Text = ""


_SIDE_RULE = "a multiple of 8 between 16 and 16384"
_FILE_RULE = "an object with a name and one of image, data or url"
_PART_RULE = f"one of {', '.join(INFO_PARTS)}"
_DIGEST_RULE = "the SHA-256 of the file: 64 hexadecimal digits"
_MODEL_RULE = 'an object like {"folder": "loras", "name": "x.safetensors", "url": "https://…"}'
RULES = {
    "workflow": "a workflow in API format, one as the editor saves it, or the name of a stored one",
    "action": f"one of {', '.join(get_args(Action))}",
    "parts": f"a list; each entry {_PART_RULE}",
    "prompt": "a string of Unicode text",
    "negative_prompt": "a string of Unicode text",
    "seed": f'a whole number from 0 to {_MAX_SEED}, or "random"',
    "width": _SIDE_RULE,
    "height": _SIDE_RULE,
    "batch_size": "a whole number from 1 to 4096",
    "length": "a whole number of frames from 1 to 100000",
    "fps": "a number of frames per second from 1 to 240",
    "steps": "a whole number from 1 to 10000",
    "cfg": "a number from 0 to 100",
    "guidance": "a number from 0 to 100",
    "denoise": "a number from 0 to 1",
    "sampler_name": 'the name of a sampler, like "euler"',
    "scheduler": 'the name of a scheduler, like "simple"',
    "loras": 'a list of at most 20 objects like {"name": "style.safetensors", "strength": 0.8}',
    "loras.name": "the name of a file in the folder loras",
    "loras.strength": "a number from -100 to 100",
    "loras.strength_clip": "a number from -100 to 100",
    "loras.url": "the URL of the file, as a string",
    "loras.sha256": _DIGEST_RULE,
    "models": f"a list of at most 50 entries; each {_MODEL_RULE}",
    "models.folder": "one of ComfyUI's model folders, like loras",
    "models.name": "the name of the file in that folder, as the workflow has it",
    "models.url": "the URL of the file, as a string",
    "models.sha256": _DIGEST_RULE,
    "inputs": 'an object like {"Your prompt": "a cat"}',
    "overrides": 'an object like {"6": {"inputs": {"text": "a cat"}}}',
    "images": f"a list; each entry {_FILE_RULE}",
    "files": f"a list; each entry {_FILE_RULE}",
    "images.name": "the file name as used in a node of the workflow, at most 200 characters",
    "files.name": "the file name as used in a node of the workflow, at most 200 characters",
    "output": 'an object like {"format": "webp", "quality": 90}',
    "output.format": f"one of {', '.join(get_args(ImageFormat))}, original",
    "output.quality": "a whole number from 1 to 100",
    "output.max_side": "a number of pixels from 16 to 16384",
    "output.background": 'a colour like "#ffffff"',
    "output.answer": f"one of {', '.join(get_args(AnswerFormat))}",
    "output.delivery": f"one of {', '.join(get_args(Delivery))}",
    "extra_pnginfo": 'an object like {"workflow": {…}}',
    "comfy_org_api_key": "a string",
    **dict.fromkeys(NODE_FIELDS, "the id of a node in the workflow, a string"),
    **dict.fromkeys(
        (f"output.{name}" for name in ("may_reencode", "previews", "live_previews", "metadata")), "true or false"
    ),
    **dict.fromkeys(
        (f"{kind}.{part}" for kind in ("images", "files") for part in ("image", "data", "url")),
        "a string: base64, a data URI or a URL",
    ),
}
"""What would be right, for messages ("<field> must be <rule>, not <value>") and for the schema."""

_ENTRIES = {
    "images": _FILE_RULE,
    "files": _FILE_RULE,
    "loras": 'an object like {"name": "style.safetensors"}',
    "models": _MODEL_RULE,
    "parts": _PART_RULE,
}


# --- Messages ----------------------------------------------------------------------------------------


def read_fields(given: dict[str, Any]) -> InputFields:
    """The fields, of the right types and within their limits. Raises InvalidInput."""
    for name in given:
        if not isinstance(name, str) or not name.isprintable():
            raise InvalidInput(f"the names of input fields must be printable strings, not {shown(name)}")
    try:
        return InputFields.model_validate(what_is_given(given))
    except ValidationError as error:
        raise _explained(error) from error


def _explained(error: ValidationError) -> InvalidInput:
    """The first problem: the place as the caller wrote it, what would be right, and what was there."""
    problem = error.errors(include_url=False, include_context=False)[0]
    is_unknown = problem["type"] == "extra_forbidden"
    loc = problem["loc"][:-1] if is_unknown else problem["loc"]
    steps = [step for step in loc if isinstance(step, int) or step in _STEPS]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    field_name = str(steps[0])
    rule_name = ".".join(step for step in steps if isinstance(step, str))
    if problem["type"] == "missing":
        return InvalidInput(f"{place} is missing: it must be {RULES[rule_name]}", field=field_name)
    if is_unknown:
        parts = ", ".join(_PARTS[field_name].model_fields)
        return InvalidInput(f"{place} has no field {shown(problem['loc'][-1])}; it has {parts}", field=field_name)
    is_entry = rule_name in _ENTRIES and isinstance(steps[-1], int)
    rule = _ENTRIES[rule_name] if is_entry else RULES.get(rule_name, "something else")
    return InvalidInput(f"{place} must be {rule}, not {shown(problem['input'])}", field=field_name)


_PARTS: dict[str, type[BaseModel]] = {
    "loras": LoraFields,
    "models": ModelFields,
    "images": FileFields,
    "files": FileFields,
    "output": OutputFields,
}
# Steps of a place that the caller wrote; pydantic adds those of unions and constraints.
_STEPS = frozenset(InputFields.model_fields).union(*(part.model_fields for part in _PARTS.values()))


def unknown_fields(fields: InputFields) -> list[str]:
    """A warning for each field that is not known: a misspelt one would be ignored silently."""
    known = list(InputFields.model_fields)
    warnings = []
    for name in list(fields.model_extra or {})[:20]:
        ignored = f"is not known and was ignored{_hint_for(name, known)}"
        warnings.append(
            f"input field {shown(name)}: {PARTLY_USED[name]}"
            if name in PARTLY_USED
            else f"input field {shown(name)} {ignored}"
        )
    for kind, files in (("images", fields.images), ("files", fields.files)):
        for number, file in enumerate(files[:20]):
            odd = ", ".join(shown(name) for name in list(file.model_extra or {})[:5])
            warnings.extend([f"{kind}[{number}] also has {odd}, which was ignored"] if odd else [])
    return warnings


def _hint_for(name: str, known: list[str]) -> str:
    if name in FOREIGN_FIELDS:
        return f": {FOREIGN_FIELDS[name]}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """A value for a message: its JSON kind if it is large, else itself, always printable."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    return ascii(value)[:80] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def listed(given: dict[str, Any]) -> str:
    """The names of fields, for a message."""
    return ", ".join(shown(name) for name in list(given)[:10]) or "no fields"
