"""Model files: which there are, and where they come from.

files       is this the file: size, header, digest
manifest    what is known of each file, and the sets that workflows need (manifest.json)
places      where models are, and where they go
memory      how much memory there is
transfer    a large file in ranges, that goes on where it stopped
web         files at web addresses, Hugging Face among them
hub         files in Hugging Face's Xet storage, by its own library (hub_child)
store       files in a bucket
locks       one at a time for each file
meter       how far it is
fetch       a model from the first source that has it, checked and put in its place
read_ahead  into memory, or to a fast disk, before it is needed
supply      what the worker does about models
backup      a folder of models and a bucket, made the same
pin         the manifest's sizes and digests, asked from Hugging Face
`python -m src.models` is the command line.
"""

from .manifest import Manifest, Model, known_manifest, read_manifest, shipped_manifest, where_to_get
from .places import tell_model_paths
from .supply import ModelSupply

__all__ = [
    "Manifest",
    "Model",
    "ModelSupply",
    "known_manifest",
    "read_manifest",
    "shipped_manifest",
    "tell_model_paths",
    "where_to_get",
]
