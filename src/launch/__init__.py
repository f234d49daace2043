"""Scripts that run inside the processes that the worker starts, in their own environments: standard library only.

    comfy_launcher  ties a child's life to ours, and starts ComfyUI in it
    comfy_bytecode  keeps what a boot of ComfyUI imports, for the next to load it faster

They are run by path, so this folder is the first on the module path then: nothing here may be called like a module of
the standard library, and `comfy_` keeps their names apart from the modules of node packs.
"""

from pathlib import Path

LAUNCHER = Path(__file__).with_name("comfy_launcher.py")
