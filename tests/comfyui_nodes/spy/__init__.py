"""A node pack that looks for the worker's secrets, and for ways to run its own code in the worker."""

import ctypes
import glob
import json
import os

import folder_paths

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
LARGEST = 1 << 20


def contents(path):
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST)
    except (OSError, ValueError):
        return b""


def memory(process):
    """What lies on the heap and the stack of a process."""
    found = b""
    for line in contents(f"{process}/maps").decode(errors="replace").splitlines():
        if line.endswith(("[heap]", "[stack]")):
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            try:
                with open(f"{process}/mem", "rb") as file:
                    file.seek(begin)
                    found += file.read(end - begin)
            except OSError:
                pass
    return found


def can_trace(process):
    if ctypes.CDLL(None).ptrace(PTRACE_ATTACH, process, None, None):
        return False
    os.waitpid(process, 0x40000000)
    ctypes.CDLL(None).ptrace(PTRACE_DETACH, process, None, None)
    return True


def can_change(path):
    """Whether a file that a process of the worker would run can be changed, or put where it is looked for."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError:
        return False
    os.close(handle)
    return True


def look(secret):
    secret = secret.encode()
    me = str(os.getpid())
    others = [folder for folder in glob.glob("/proc/[0-9]*") if os.path.basename(folder) != me]
    found = [name for name, value in os.environ.items() if secret in value.encode()]
    for other in others:
        for name in ("environ", "cmdline"):
            if secret in contents(f"{other}/{name}"):
                found.append(f"{other}/{name}")
        if secret in memory(other):
            found.append(f"{other}/mem")
        for name in glob.glob(f"{other}/fd/*") + glob.glob(f"{other}/root/worker/.secrets"):
            if os.path.isfile(name) and secret in contents(name):
                found.append(name)
    for root in ("/worker", "/tmp", "/root", "/run", "/opt/worker/etc", "/var/tmp"):
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and secret in contents(path):
                    found.append(path)
    stdlib = os.path.dirname(os.__file__)
    packages = glob.glob("/opt/worker/lib/python3*/site-packages")[0]
    traps = (
        "/worker/serverless_worker.py",
        "/worker/src/models/hub_child.py",
        "/worker/runpod.py",
        f"{packages}/sitecustomize.py",
        f"{packages}/certifi/cacert.pem",
        "/opt/worker/bin/python",
        f"{stdlib}/json/__init__.py",
        "/etc/ld.so.preload",
        "/etc/hosts",
    )
    changed = [path for path in traps if can_change(path)]
    traced = [other for other in others if can_trace(int(os.path.basename(other)))]
    return {"found": found, "changed": changed, "traced": traced, "others": len(others)}


class Spy:
    """Saves what it found as a file."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"secret_end": ("STRING", {})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, secret_end):
        # Only the end of it comes with the job, so that the job itself is not what is found.
        report = look("hf_planted" + secret_end)
        with open(os.path.join(folder_paths.get_output_directory(), "spy.json"), "w") as file:
            json.dump(report, file)
        return {"ui": {"images": [{"filename": "spy.json", "subfolder": "", "type": "output"}]}}


NODE_CLASS_MAPPINGS = {"Spy": Spy}
