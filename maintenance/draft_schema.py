"""`python -m maintenance.draft_schema URL`: write the draft engine's node schemas, from the ComfyUI at that URL."""

from __future__ import annotations

import json
import sys
import urllib.request

from src.draft.executor import NODES
from src.draft.schema import FILE, excerpt


def main() -> None:
    """Write the excerpt of its /object_info."""
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as response:
        answer = json.load(response)
    lines = (f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in excerpt(answer, sorted(NODES)).items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
