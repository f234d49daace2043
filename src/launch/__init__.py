"""What runs first in processes, in whatever environment they have: standard library only.

    comfy_launcher  makes a child process exit when the worker does, and starts ComfyUI in it
    comfy_confinement  shuts that process out of the worker
    comfy_bytecode  stores the bytecode of what ComfyUI imports at startup, so that the next start is faster
    comfy_deferred_imports  has ComfyUI import large libraries when they are used, not at startup
    container_memory  the memory that there is: of the container, not of the machine
    container_init  what the worker has to do as a container's first process

Those for ComfyUI are run by path, so this folder is then first on `sys.path`: no file here may have the name of a
standard library module, and their prefix `comfy_` avoids clashes with the modules of custom nodes.
"""

from pathlib import Path

LAUNCHER = Path(__file__).with_name("comfy_launcher.py")
