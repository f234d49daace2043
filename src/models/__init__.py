"""Model files: which models are known, where they are found, and how they are downloaded and checked.

folders       ComfyUI's model folders, and their second names
files         checks of one file: its size, its safetensors header, its digest
chunks        reads a file in large chunks, several at a time
manifest      the known models, and the sets of them that workflows need (manifest.json)
local_cache   copies of models on a fast disk
places        the folders that are searched for models, and the one that downloads go to
partial       a partly downloaded file
transfer      downloads one large file in ranges: stalls are detected, the file is checked and renamed
web           files at URLs, those of Hugging Face repositories among them
hub           files in Hugging Face's Xet storage, downloaded by huggingface_hub in a child process (hub_child)
store         model files in a bucket
locks         one lock file for each model file
meter         progress of a transfer
fetch         a model from the first source that has it, checked and put into its folder
read_ahead    reads models into memory, or copies them to a fast disk, before they are needed
provisioning  the models of one worker: fetched while it boots, and when a job needs them
backup        copies a folder of models to a bucket, and back
verify        checks every model file of some folders
pin           updates the sizes, digests and revisions in the manifest from Hugging Face
`python -m src.models` is the command line.
"""
