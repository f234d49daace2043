"""Benchmarks of this worker, alone and against worker-comfyui. `python -m benchmarks --list` lists them."""
