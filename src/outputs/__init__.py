"""History entry -> files -> answer.

listing    what a run produced: files, websocket frames and texts
unreported  files that nodes saved without telling the history
node_outputs  what each node reported to the client, with the names of the answer's files
gathering  collects the files, and deletes them after the job
content_types  what kind of file a name is of
encoding   pictures converted to another format or scaled down
delivery   base64 in the answer, or upload to a bucket
answer     builds the answer; the only module that knows the names of output fields
serialisable  any answer as one that JSON in UTF-8 can carry
fields     the schema of the answer
"""

from ..pictures.encoding import Encoding
from .answer import Result, Timings, failure_answer, info_answer, success_answer, validation_answer
from .delivery import Outcome, Plan, deliver
from .gathering import LocalFile, gather_files, remove_files, remove_files_outside
from .listing import OutputFile, hints, list_files, list_texts, write_frames
from .node_outputs import FileNames, node_outputs
from .serialisable import serialisable
from .unreported import FolderWatch, list_unreported

__all__ = [
    "Encoding",
    "FileNames",
    "FolderWatch",
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
    "list_unreported",
    "node_outputs",
    "remove_files",
    "remove_files_outside",
    "serialisable",
    "success_answer",
    "validation_answer",
    "write_frames",
]
