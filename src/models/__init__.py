"""Model files: which there are, and where they come from.

manifest   what is known of each file, and the sets that workflows need (manifest.json)
"""

from .manifest import Manifest, Model, read_manifest, shipped_manifest, where_to_get

__all__ = ["Manifest", "Model", "read_manifest", "shipped_manifest", "where_to_get"]
