"""A module whose imports are put off does all that it would do otherwise; the libraries come when they are used."""

from __future__ import annotations

import builtins
import importlib
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.launch.comfy_deferred_imports import DeferredImports, compile_deferred, import_all

from .test_comfy_bytecode import keep
from .test_comfy_launcher import LAUNCHER, run

LIBRARY = {
    "scipy/__init__.py": """
VERSION = 1
class Base:
    kind = "base"
class Trouble(Exception): pass
def double(x): return 2 * x
""",
    "scipy/fft.py": "NAME = 'fft'\n",
    "scipy/stats.py": "NAME = 'stats'\n",
    "kornia/__init__.py": "import time; time.sleep(0.2)\nGRAY = 'gray'\n",
    "torchaudio/__init__.py": "raise OSError('libsox.so is missing')\n",
}


@pytest.fixture(autouse=True)
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Small libraries under the names of large ones, and none of their modules imported."""
    folder = tmp_path / "site-packages"
    for name, text in LIBRARY.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    before = dict(sys.modules)
    for name in before:
        if name.partition(".")[0] in ("scipy", "kornia", "torchaudio"):
            del sys.modules[name]
    yield folder
    for name in list(sys.modules):
        if name.partition(".")[0] in ("scipy", "kornia", "torchaudio"):
            del sys.modules[name]
    sys.modules.update(before)


def deferred(text: str, missing: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """The namespace of a module whose imports are put off; None if none can be."""
    compiled = compile_deferred(text.encode(), "module.py", lambda name: name not in missing)
    if compiled is None:
        return None
    module = types.ModuleType("module")
    DeferredImports(module.__dict__)
    exec(compiled.code, module.__dict__)
    return module.__dict__


def plain(text: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "module"}
    exec(compile(text, "module.py", "exec", dont_inherit=True), namespace)
    return namespace


def is_imported(name: str = "scipy") -> bool:
    return name in sys.modules


# Modules with a function `value()`; nothing is imported before it is called.
LATE = {
    "a module": "import scipy\ndef value(): return scipy.VERSION",
    "a submodule": "import scipy.fft\ndef value(): return scipy.fft.NAME",
    "two submodules": "import scipy.fft\nimport scipy.stats\ndef value(): return scipy.fft.NAME + scipy.stats.NAME",
    "by another name": "import scipy.fft as f\ndef value(): return f.NAME",
    "a name of it": "from scipy import double as d\ndef value(): return d(4)",
    "two names of it": "from scipy import double, Base\ndef value(): return double(4), Base.kind",
    "in a try": "try:\n    import scipy\n    HAS = True\nexcept ImportError:\n    HAS, scipy = False, None\n"
    "def value(): return HAS, scipy.VERSION",
    "in a handler": "try:\n    import no_such_module\nexcept ImportError:\n    from scipy import fft\n"
    "def value(): return fft.NAME",
    "under a condition": "if True:\n    import scipy\nelse:\n    scipy = None\ndef value(): return scipy.VERSION",
    "after another value": "scipy = None\nimport scipy\ndef value(): return scipy.VERSION",
    "a default": "import scipy\ndef f(a, b=scipy.VERSION, *, c=scipy.Base):\n    'text'\n    return b, c.kind\n"
    "def value(): return f(1), f(1, 2), f.__doc__, f(1, c=scipy.Base())",
    "a default of a method": "import scipy\nclass A:\n    @classmethod\n    def f(cls, b=scipy.VERSION): return b\n"
    "    async def g(self, b=scipy.VERSION): return b\ndef value(): return A.f(), A.f(3)",
    "an annotation that nobody evaluates": "from __future__ import annotations\nimport scipy\n"
    "def f(a: scipy.Base) -> list[scipy.Base]: return a\ndef value(): return f.__annotations__, scipy.VERSION",
    "isinstance": "import scipy\ndef value(): return isinstance(scipy.Base(), scipy.Base), isinstance(1, scipy.Base)",
    "a base in a function": "from scipy import Base\ndef value():\n    class A(Base): pass\n    return A.kind, A.__mro__[1].kind",
    "an exception": "import scipy\ndef value():\n    try:\n        raise scipy.Trouble\n    except scipy.Trouble: return 'caught'",
    "nested": "import scipy\ndef value():\n    return [(lambda: f'{scipy.double(n)}')() for n in range(2) if scipy]",
    "a generator": "import scipy\ndef g():\n    yield scipy.VERSION\ndef value(): return list(g())",
    "a class": "import scipy\nclass A:\n    def f(self): return scipy.VERSION\ndef value(): return A().f()",
    "a loop outside": "import scipy\nN = [n for n in range(3)]\ndef value(): return N, scipy.VERSION",
}


@pytest.mark.parametrize("text", LATE.values(), ids=LATE.keys())
def test_a_function_that_uses_a_library_gets_it_then(text: str) -> None:
    namespace = deferred(text)
    assert namespace
    assert not is_imported()
    assert repr(namespace["value"]()) == repr(plain(text)["value"]())
    assert is_imported()
    assert namespace["value"]() is not None  # and again


# Modules that use it while they are being imported: it comes at once, and all is as ever.
AT_ONCE = {
    "a base": "import scipy\nclass A(scipy.Base): pass\ndef value(): return A.kind",
    "a value": "from scipy import double\nTWO = double(1)\ndef value(): return TWO, double(2)",
    "set": "import scipy\nscipy.VERSION = 2\ndef value(): return scipy.VERSION",
    "replaced": "import scipy\nscipy = scipy.double\ndef value(): return scipy(2)",
}


@pytest.mark.parametrize("text", AT_ONCE.values(), ids=AT_ONCE.keys())
def test_a_module_that_uses_it_at_once_gets_it_at_once(text: str) -> None:
    namespace = deferred(text)
    assert namespace
    assert is_imported()
    assert repr(namespace["value"]()) == repr(plain(text)["value"]())


# Modules whose imports stay as they are.
LEFT_ALONE = {
    "a local of that name": "import scipy\ndef f():\n    scipy = 1\n    return scipy",
    "a parameter of that name": "import scipy\ndef f(scipy): return scipy",
    "a lambda's": "import scipy\nf = lambda scipy: scipy",
    "a comprehension's": "import scipy\nx = [scipy for scipy in (1,)]",
    "a class's": "import scipy\nclass A:\n    scipy = 1",
    "an import in a function": "import scipy\ndef f():\n    import scipy.fft\n    return scipy",
    "an exception's": "import scipy\ndef f():\n    try: pass\n    except OSError as scipy: pass",
    "a global statement": "import scipy\ndef f():\n    global scipy\n    scipy = 1",
    "deleted": "import scipy\nX = scipy.VERSION\ndel scipy",
    "looks at its names": "import scipy\ndef f(): return globals()['scipy']",
    "has a __getattr__": "import scipy\ndef __getattr__(name): return 1",
    "an annotation": "import scipy\ndef f(a: scipy.Base): pass",
    "an annotation that is text": "from scipy import Base\ndef f() -> 'list[Base]': pass",
    "a field": "import scipy\nclass A:\n    a: scipy.Base",
    "a field as text": "from __future__ import annotations\nimport scipy\nclass A:\n    a: scipy.Base",
    "a decorated function's": "from __future__ import annotations\nimport scipy, json\n@print\ndef f(a: scipy.Base): pass",
    "everything of it": "from scipy import *",
    "another library": "import json",
    "of its own": "from . import scipy",
    "in a pattern": "import scipy\ndef f(x):\n    match x:\n        case scipy.Base(): return 1",
    "a function of that name too": "import scipy\ndef f():\n    def scipy(): pass",
}


@pytest.mark.parametrize("text", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_an_import_stays_where_its_name_means_something_else_too(text: str) -> None:
    assert deferred(text) is None


def test_what_cannot_be_imported_is_not_put_off() -> None:
    text = "import scipy\nimport kornia\ndef value(): return scipy, kornia"
    namespace = deferred(text, missing=("kornia",))
    assert namespace
    assert is_imported("kornia") and not is_imported("scipy")


def test_a_decorator_of_a_lazy_submodule_is_applied_by_the_first_call(
    libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    text = (
        "import torch\nimport torch._dynamo\n"
        "class A:\n    @torch._dynamo.disable\n    def f(self, x):\n        'text'\n        return x"
    )
    namespace = deferred(text)
    assert namespace
    calls = []

    def disable(function: Callable[..., Any]) -> Callable[..., Any]:
        calls.append(function.__name__)
        return lambda *arguments: ("disabled", function(*arguments))

    sys.modules["torch"]._dynamo = types.SimpleNamespace(disable=disable)  # type: ignore[attr-defined]
    assert (calls, namespace["A"].f.__doc__) == ([], "text")
    assert [namespace["A"]().f(n) for n in (1, 2)] == [("disabled", 1), ("disabled", 2)]
    assert calls == ["f"]


def test_other_modules_see_the_name_and_may_replace_it() -> None:
    namespace = deferred("import scipy\nfrom scipy import fft\ndef value(): return scipy, fft")
    assert namespace
    module = types.ModuleType("module")
    module.__dict__.update(namespace)
    assert module.__getattr__("fft").NAME == "fft"
    with pytest.raises(AttributeError, match="module 'module' has no attribute 'other'"):
        module.__getattr__("other")
    namespace["scipy"] = "mine"
    assert namespace["value"]() == ("mine", sys.modules["scipy.fft"])


def test_threads_that_use_it_at_the_same_time_all_get_it() -> None:
    namespace = deferred("from kornia import GRAY\ndef value(): return GRAY")
    assert namespace
    values: list[str] = []
    threads = [threading.Thread(target=lambda: values.append(namespace["value"]())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == ["gray"] * 8


def test_an_import_that_fails_later_fails_where_it_is_used() -> None:
    namespace = deferred("import torchaudio\ndef value(): return torchaudio")
    assert namespace
    for _ in range(2):
        with pytest.raises(OSError, match=r"libsox\.so is missing"):
            namespace["value"]()


@pytest.mark.parametrize("how", ["import scipy.fft", "import importlib; importlib.import_module('scipy.fft')"])
def test_an_import_in_another_thread_waits_for_the_one_in_the_background(
    libraries: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (libraries / "kornia" / "__init__.py").write_text(
        "import time\nIS_DONE = False\ntime.sleep(0.5)\nIS_DONE = True\n"
    )
    monkeypatch.setattr(DeferredImports, "modules", [])
    assert deferred("import kornia\ndef value(): return kornia")
    before = builtins.__import__, importlib.import_module
    thread = threading.Thread(target=import_all, args=(lambda: True,))
    thread.start()
    while "kornia" not in sys.modules:
        time.sleep(0.001)
    exec(how, {})
    assert sys.modules["kornia"].IS_DONE
    thread.join()
    assert (builtins.__import__, importlib.import_module) == before


# --- In a program ----------------------------------------------------------------------------------------

MAIN = """
import importlib.util, sys
sys.path.append(sys.path[0] + "/site-packages")
def by_file(path):
    spec = importlib.util.spec_from_file_location(path, path)
    module = sys.modules[path] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
import own
extra = by_file(sys.path[0] + "/extras/extra.py")
print("imported", *(name for name in ("scipy", "kornia") if name in sys.modules))
if "pack" in sys.argv:
    by_file("custom_nodes/pack.py")
print(own.value(), extra.value())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program with a module of its own, one that it imports by its file, and a custom node."""
    for name, text in {
        "main.py": MAIN,
        "own.py": "import scipy\ndef value(): return scipy.VERSION\n",
        "extras/extra.py": "from kornia import GRAY\ndef value(): return GRAY\n",
        "custom_nodes/pack.py": "import scipy, sys\nprint('pack has', 'scipy' in sys.modules)\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def said(folder: Path, *program: str) -> str:
    done = run(folder, *program)
    return done.stdout.strip() + done.stderr.strip()[-300:]


def test_a_programs_own_modules_put_imports_off_and_a_custom_node_does_not(program: Path) -> None:
    everything = "imported scipy kornia\n1 gray"
    assert said(program, "main.py") == everything
    keep(program)
    assert said(program, "main.py") == "imported\n1 gray"
    assert said(program, "main.py", "pack") == "imported\npack has True\n1 gray"
    assert said(program, "--import-all", "main.py") == everything


def test_a_library_that_has_changed_since_is_imported_at_once(program: Path, libraries: Path) -> None:
    keep(program)
    with (libraries / "scipy" / "__init__.py").open("a") as file:
        file.write("VERSION = 3\n")
    assert said(program, "main.py") == "imported scipy\n3 gray"


def test_a_library_that_has_gone_is_told_at_the_start(program: Path, libraries: Path) -> None:
    keep(program)
    (libraries / "scipy" / "__init__.py").write_text("raise ImportError('broken by an update')\n")
    assert "own.py" in run(program, "main.py").stderr
    assert "ImportError: broken by an update" in said(program, "main.py")


AFTER_BOOT = """
import gc, sys, threading, time
sys.path.append(sys.path[0] + "/site-packages")
import own
from extras import extra
busy, work, wakes = threading.Event(), threading.Event(), threading.Event()
def prompt_worker():
    work.wait()
    busy.set()
    end = time.monotonic() + 1.5
    while time.monotonic() < end: sum(range(1000))
    print("while a job ran", *(name for name in ("scipy", "kornia") if name in sys.modules))
    wakes.wait()
def frozen():
    known = {id(found) for found in gc.get_objects()}
    return "kornia" in sys.modules and id(sys.modules["kornia"].__dict__) not in known
if "no wait" not in sys.argv:
    threading.Thread(target=prompt_worker, daemon=True).start()
    work.set()
    busy.wait()
    open("ready", "w").close()
    while not frozen(): time.sleep(0.01)
print("imported", *(name for name in ("scipy", "kornia") if name in sys.modules))
"""
SAID = "while a job ran\nimported scipy kornia\n"


def after_boot(program: Path) -> tuple[str, str]:
    """What the program writes to stdout and stderr, which is told that it has booted."""
    ready, tell = os.pipe()
    command = [sys.executable, str(LAUNCHER), str(os.getpid()), str(ready), "main.py"]
    process = subprocess.Popen(
        command, cwd=program, pass_fds=(ready,), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(ready)
    while not (program / "ready").exists():
        assert process.poll() is None
    os.write(tell, b"ready")
    output, errors = process.communicate(timeout=60)
    os.close(tell)
    return output, errors


def test_what_was_put_off_is_imported_once_no_job_runs(program: Path) -> None:
    (program / "main.py").write_text(AFTER_BOOT)
    keep(program, "no wait")
    assert said(program, "main.py", "no wait") == "imported"
    assert after_boot(program) == (SAID, "")


def test_one_that_fails_then_is_told_and_the_others_are_imported(program: Path, libraries: Path) -> None:
    (program / "main.py").write_text(AFTER_BOOT)
    (program / "own.py").write_text("import scipy.stats\ndef value(): return scipy.stats\n")
    keep(program, "no wait")
    (libraries / "scipy" / "stats.py").write_text("raise OSError('libblas.so is missing')\n")
    output, errors = after_boot(program)
    assert output == SAID
    assert "OSError: libblas.so is missing" in errors
