"""A job's overrides in a workflow: where a prompt, a seed, a size or a LoRA goes, and what follows it. Pure functions.

A workflow is seen by the types of its inputs and outputs (`workflow.typed`); names decide only between inputs of one
type, titles never.

    slots      which inputs of a node take a text, a seed, a size?
    origins    where does the value of an input stand, if it is linked?
    roles      which nodes make the result, and what reaches them?
    places     inputs of a node that take a value together
    conditioning  from a sampler upstream along its conditioning
    prompts, sizes, sampling  the places of each kind of override
    kinds      the table of the kinds, and the inputs that each of them sets
    followers  what else follows an override
    loras      inserts LoRA loaders after the model loader
    overrides  applies a job's overrides
"""

from .kinds import NODE_FIELDS
from .loras import Lora
from .overrides import (
    AppliedOverrides,
    OverridableField,
    Overrides,
    apply_overrides,
    overridable_fields,
    set_inputs,
)

__all__ = [
    "NODE_FIELDS",
    "AppliedOverrides",
    "Lora",
    "OverridableField",
    "Overrides",
    "apply_overrides",
    "overridable_fields",
    "set_inputs",
]
