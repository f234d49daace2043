"""Nodes for tests on a real ComfyUI: they do what node packs in the wild do and core nodes do not."""

import os
import time

import comfy.utils
import folder_paths
import torch
from comfy_execution.graph import ExecutionBlocker
from PIL import Image


class SaveWithoutPrefix:
    """Saves under a fixed name, without any filename_prefix."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, images):
        pixels = (images[0].clamp(0, 1) * 255).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(os.path.join(folder_paths.get_output_directory(), "fixed.png"))
        return {"ui": {"images": [{"filename": "fixed.png", "subfolder": "", "type": "output"}]}}


class Sleep:
    """Takes its time; with `steps` it tells its progress, and can be interrupted then."""

    @classmethod
    def INPUT_TYPES(cls):
        numbers = {"seconds": ("FLOAT", {"default": 1.0, "max": 3600.0}), "steps": ("INT", {"default": 0})}
        return {"required": {"image": ("IMAGE",), **numbers}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, image, seconds, steps):
        bar = comfy.utils.ProgressBar(steps) if steps else None
        for _ in range(max(1, steps)):
            time.sleep(seconds / max(1, steps))
            if bar:
                bar.update(1)
        return (image,)


class Fail:
    """Fails in the way that `how` names."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "image": ("IMAGE",),
                "how": ("STRING", {"default": "raise"}),
                "times": ("INT", {"default": 10**6}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "test"
    failures = 0

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def run(self, image, how, times):
        if Fail.failures >= times:
            Fail.failures = 0
            return (image,)
        Fail.failures += 1
        if how == "out of memory":
            raise torch.cuda.OutOfMemoryError("Allocation on device")
        if how == "cuda error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if how == "exit":
            raise SystemExit(1)
        if how == "die":
            os.kill(os.getpid(), 9)
        if how == "block":
            return (ExecutionBlocker("this branch is blocked"),)
        raise ValueError(how)


NODE_CLASS_MAPPINGS = {"WorkerTestSave": SaveWithoutPrefix, "WorkerTestSleep": Sleep, "WorkerTestFail": Fail}
