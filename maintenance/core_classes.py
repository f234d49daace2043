"""`python -m maintenance.core_classes URL`: store the node classes of the ComfyUI at that URL.

That ComfyUI should have no node packs and no model files, because its response would list them.
"""

from __future__ import annotations

import json
import sys
import urllib.request

from src.workflow.core_classes import FILE, excerpt


def main() -> None:
    """Write the excerpt of its /object_info, one class per line."""
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as response:
        answer = json.load(response)
    lines = (
        f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'))}" for name, entry in excerpt(answer).items()
    )
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
