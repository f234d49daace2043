"""What kind of file a name is of."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath

# Types that Python's table, which depends on the system, may lack or name differently.
_CONTENT_TYPES = {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".opus": "audio/ogg",
    ".ogg": "audio/ogg",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".ply": "model/ply",
    ".svg": "image/svg+xml",
    ".exr": "image/x-exr",
    ".fbx": "application/octet-stream",
    ".hdr": "image/vnd.radiance",
    ".json": "application/json",
    ".jxl": "image/jxl",
    ".md": "text/markdown",
    ".safetensors": "application/octet-stream",
    ".splat": "application/octet-stream",
    ".spz": "application/octet-stream",
    ".usdz": "model/vnd.usdz+zip",
    ".txt": "text/plain",
}
_KINDS = ("image", "video", "audio", "text")


def content_type(name: str) -> str:
    """The MIME type of a file, by the extension of its name."""
    extension = PurePosixPath(name).suffix.lower()
    return _CONTENT_TYPES.get(extension) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def kind_of(name: str) -> str:
    """`image`, `video`, `audio`, `text`, `latent` or `file`: the types of Comfy's API v2."""
    if name.lower().endswith(".latent"):
        return "latent"
    kind = content_type(name).partition("/")[0]
    return kind if kind in _KINDS else "file"
