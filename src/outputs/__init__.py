"""History entry -> files -> answer.

listing    what a run made: files, frames and texts
gathering  the files themselves, and their end
metadata   the workflow in a picture: put in, taken out
encoding   pictures as another format or smaller
delivery   base64 in the answer, or a bucket
answer     the answer; the only place that knows the names of output fields
"""

from .answer import Result, Timings, failure_answer, info_answer, success_answer, validation_answer
from .delivery import Outcome, Plan, deliver
from .encoding import Encoding
from .gathering import LocalFile, gather_files, remove_files, remove_named_files
from .listing import OutputFile, hints, list_files, list_texts, write_frames

__all__ = [
    "Encoding",
    "LocalFile",
    "Outcome",
    "OutputFile",
    "Plan",
    "Result",
    "Timings",
    "deliver",
    "failure_answer",
    "gather_files",
    "hints",
    "info_answer",
    "list_files",
    "list_texts",
    "remove_files",
    "remove_named_files",
    "success_answer",
    "validation_answer",
    "write_frames",
]
