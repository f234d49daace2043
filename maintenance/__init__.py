"""Commands for maintainers: what has to be looked at again when ComfyUI or its editor changes."""
