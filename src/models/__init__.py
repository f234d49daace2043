"""Model files: which there are, and where they come from.

folders     ComfyUI's folders, and their other names
files       is this the file: size, header, digest
pieces      a file in large pieces
manifest    what is known of each file, and the sets that workflows need (manifest.json)
local_cache copies on a fast disk
places      where models are, and where they go
memory      how much memory there is
partial     what has come of a file
transfer    a large file in ranges, watched, checked, given its name
web         files at web addresses, Hugging Face among them
hub         files in Hugging Face's Xet storage, by its own library (hub_child)
store       files in a bucket
locks       one at a time for each file
meter       how far it is
fetch       a model from the first source that has it, checked and put in its place
read_ahead  into memory, or to a fast disk, before it is needed
supply      what the worker does about models
backup      a folder of models and a bucket, made the same
verify      every model file of some folders, and what is wrong with each
pin         the manifest's sizes and digests, asked from Hugging Face
`python -m src.models` is the command line.
"""
