"""Benchmarks of this worker, alone and compared with worker-comfyui. `python -m benchmarks --list` lists them."""
