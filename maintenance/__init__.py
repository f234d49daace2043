"""Commands for maintainers: regenerate or check what depends on the code, on ComfyUI or on its editor."""
