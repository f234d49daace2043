"""Node packs that are not part of an image: where they come from, and how they are put beside ComfyUI.

beside     the packs beside those of ComfyUI itself: on volumes, and of CUSTOM_NODES
installed  what ComfyUI is to load
registry   ComfyUI's registry: what it says of packs, their versions and classes
fetch      a pack's files, from the registry's archive or a git repository
libraries  the Python libraries that packs want, beside those of ComfyUI
classes    which node classes a pack has
install    the packs of CUSTOM_NODES, put on the volume once for all workers
lock       entries of docker/custom_nodes.lock, for packs that a workflow needs
"""

from .beside import install_packs
from .installed import InstalledPacks

__all__ = ["InstalledPacks", "install_packs"]
