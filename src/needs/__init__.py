"""What workflows need besides ComfyUI: models, node packs, files; read from files, without fetching anything.

facts      what is needed, and where each fact is from
workflows  what a workflow needs, in the editor's or the API format
lists      what lists of an installation say: a snapshot of ComfyUI-Manager, a comfy-build.yaml
installation  what a ComfyUI on this machine has
presence   what of it is there
report     the facts of several files, for people and as JSON
"""

from .facts import ModelNeed, Needs, PackNeed
from .installation import read_installation
from .lists import is_list_of_needs, read_list
from .presence import packs_in, with_presence
from .report import as_json, as_table
from .workflows import needs_of_workflow, saved_models

__all__ = [
    "ModelNeed",
    "Needs",
    "PackNeed",
    "as_json",
    "as_table",
    "is_list_of_needs",
    "needs_of_workflow",
    "packs_in",
    "read_installation",
    "read_list",
    "saved_models",
    "with_presence",
]
