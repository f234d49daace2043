"""Nodes for tests on a real ComfyUI: they do what node packs in the wild do and core nodes do not."""

import io
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from types import SimpleNamespace

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
    failures = Counter()

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def run(self, image, how, times):
        if Fail.failures[how] >= times:
            del Fail.failures[how]
            return (image,)
        Fail.failures[how] += 1
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


class Mesh:
    """A triangle, for SaveGLB."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("MESH",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self):
        vertices = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        faces = torch.tensor([[[0, 1, 2]]])
        try:
            from comfy_api.latest import Types

            return (Types.MESH(vertices, faces),)
        except (ImportError, AttributeError):  # older versions take any object with these attributes
            return (SimpleNamespace(vertices=vertices, faces=faces),)


class Drawing:
    """A red square as SVG, for SaveSVGNode."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("SVG",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self):
        drawing = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9" fill="red"/></svg>'
        return (SimpleNamespace(data=[io.BytesIO(drawing)]),)


class Gifs:
    """Reports what it saved in the way of Video Helper Suite: under `gifs`, with more keys than needed."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "AnimateDiff"})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, images, filename_prefix):
        root = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, root)
        frames = [Image.fromarray((image.clamp(0, 1) * 255).to(torch.uint8).numpy()) for image in images]
        file = f"{name}_{counter:05}.gif"
        frames[0].save(os.path.join(folder, file), save_all=True, append_images=frames[1:], duration=100)
        frames[0].save(os.path.join(folder, f"{name}_{counter:05}.png"))
        preview = {
            "filename": file,
            "subfolder": subfolder,
            "type": "output",
            "format": "image/gif",
            "frame_rate": 10.0,
            "workflow": f"{name}_{counter:05}.png",
        }
        return {"ui": {"gifs": [{**preview, "fullpath": os.path.join(folder, file)}], "unfinished_batch": [True]}}


class OpensPath:
    """Opens a path as it stands, as some of Video Helper Suite's nodes do; gives its size in bytes."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"video": ("STRING", {"default": ""})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, video):
        return (os.path.getsize(video),)


class WantsWorkflow:
    """Looks itself up in the editor's workflow, as some packs do; gives its own title."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, unique_id, extra_pnginfo):
        nodes = extra_pnginfo["workflow"]["nodes"]
        return (next(node["title"] for node in nodes if str(node["id"]) == str(unique_id)),)


class Partner:
    """Wants a key, as partner nodes do; gives its length."""

    API_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"api_key": "API_KEY_COMFY_ORG"}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, api_key=None):
        return (len(api_key or ""),)


class Misbehave:
    """An output node that does what `how` names to the output folder, or around it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "how": ("STRING", {"default": ""})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def run(self, images, how):
        root = folder_paths.get_output_directory()
        names = ["odd.png"]
        if how == "fifo":
            os.mkfifo(os.path.join(root, names[0]))
        elif how == "socket":
            socket.socket(socket.AF_UNIX).bind(os.path.join(root, names[0]))
        elif how == "bytes":  # a name that is no UTF-8
            with open(os.path.join(os.fsencode(root), b"odd-\xff.png"), "wb") as file:
                file.write(b"content")
            names = ["odd-\udcff.png"]
        elif how == "surrogate":
            names = ["odd-\ud800.png"]
        elif how == "long name":
            names = ["a" * 5000 + ".png"]
        elif how == "many missing":
            names = [f"missing-{number}.png" for number in range(10000)]
        elif how == "replace folder":
            shutil.rmtree(root)
            os.symlink(os.environ["WORKER_TEST_FOLDER"], root)
            names = []
        elif how == "leave behind":
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            names = []
        return {"ui": {"images": [{"filename": name, "subfolder": "", "type": "output"} for name in names]}}


class SavesInSilence:
    """Saves a file and does not tell: with its prefix as a path, as a bare name, without one, or elsewhere."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "text": ("STRING", {}),
                "how": (["prefix", "bare name", "fixed name", "temp", "elsewhere", "input"], {}),
            },
            "optional": {"filename_prefix": ("STRING", {})},
        }

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, text, how, filename_prefix="x"):
        output = folder_paths.get_output_directory()
        path = {
            "prefix": os.path.join(output, f"{filename_prefix}_1.txt"),
            "bare name": os.path.join(output, "texts", f"{filename_prefix}.txt"),
            "fixed name": os.path.join(output, "fixed.txt"),
            "temp": os.path.join(folder_paths.get_temp_directory(), "scratch.png"),
            "elsewhere": os.path.join(folder_paths.base_path, "datasets", "worker test", "shard.txt"),
            "input": os.path.join(folder_paths.get_input_directory(), "cached.txt"),
        }[how]
        if how in ("bare name", "elsewhere"):
            os.makedirs(os.path.join(output, "texts") if how == "bare name" else os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return {}


class Reports:
    """Saves a mesh, and reports it with a plain path, or what no node should report, or too much."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "how": (["result", "hostile", "huge"], {}),
                "filename_prefix": ("STRING", {"default": "mesh/m"}),
            }
        }

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, how, filename_prefix):
        output = folder_paths.get_output_directory()
        place = f"{filename_prefix}_00001.glb"
        path = os.path.join(output, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("mesh")
        if how == "huge":
            return {"ui": {"blob": ["A" * 200_000]}}
        if how == "result":
            return {"ui": {"result": [place, None, []]}}
        nested = []
        for _ in range(60):
            nested = [nested]
        subfolder, name = os.path.split(place)
        item = {"filename": name, "subfolder": subfolder, "type": "output"}
        return {
            "ui": {
                "3d": [{**item, "fullpath": path, "copy": path, "note": f"in {path}", "kept": 1}],
                "text": [f"saved {path} of {place} from {folder_paths.base_path}/models/x.bin"],
                "paths": [path, place, output, f"{folder_paths.base_path}/main.py", f"a {os.path.dirname(place)} b"],
                "odd": [float("nan"), float("-inf"), "half \ud800", {path: {"in": [place, path]}}, nested],
                "inputs": [{"filename": "secret.png", "subfolder": "", "type": "input"}],
                "empty": [],
                path: [True],
            }
        }


class Broken:
    """Cannot say what it takes."""

    @classmethod
    def INPUT_TYPES(cls):
        raise RuntimeError("no such folder")

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "test"


NODE_CLASS_MAPPINGS = {
    "WorkerTestBroken": Broken,
    "WorkerTestSavesInSilence": SavesInSilence,
    "WorkerTestReports": Reports,
    "WorkerTestSave": SaveWithoutPrefix,
    "WorkerTestSleep": Sleep,
    "WorkerTestFail": Fail,
    "WorkerTestMesh": Mesh,
    "WorkerTestDrawing": Drawing,
    "WorkerTestGifs": Gifs,
    "VHS_WorkerTestPath": OpensPath,
    "WorkerTestWantsWorkflow": WantsWorkflow,
    "WorkerTestPartner": Partner,
    "WorkerTestMisbehave": Misbehave,
}
