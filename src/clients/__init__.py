"""Jobs as clients of other workers and of ComfyUI's own API send them, and answers as they read them. Pure functions.

requests   an `input` of another shape, as a job of this worker
inline_files  files that stand in the workflow itself, by URL or as base64
answers    an answer in the format of another worker
"""

from .answers import in_format
from .inline_files import with_files_apart
from .requests import FOREIGN_FIELDS, as_own_input

__all__ = ["FOREIGN_FIELDS", "as_own_input", "in_format", "with_files_apart"]
