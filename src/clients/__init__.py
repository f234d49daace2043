"""Jobs as clients of other workers and of ComfyUI's own API send them, and answers as they read them. Pure functions.

requests  an `input` of another shape, as a job of this worker
answers   an answer in the format of another worker
"""

from .answers import in_answer_format
from .requests import (
    FOREIGN_FIELDS,
    MAY_BE_EMPTY,
    PARTLY_USED,
    SAME_FIELDS,
    as_own_input,
    merged_fields,
    what_is_given,
)

__all__ = [
    "FOREIGN_FIELDS",
    "MAY_BE_EMPTY",
    "PARTLY_USED",
    "SAME_FIELDS",
    "as_own_input",
    "in_answer_format",
    "merged_fields",
    "what_is_given",
]
