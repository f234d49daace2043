"""Imports of large libraries that ComfyUI's own modules do at startup, put off until something of them is used.

Half of ComfyUI's startup time goes into libraries that neither the startup nor a plain picture needs: scipy, kornia,
transformers, … `compile_deferred` compiles a module so that its imports of such libraries run when a function first
uses a name they bind, as Python's lazy imports will (PEP 810). Nothing stands in for a library: the name is absent
until it is the real thing. So isinstance, subclassing and pickling work as ever, and other modules (custom nodes, the
libraries among themselves) import for real. `import_all` runs what is left.

A module's code changes so:

* `import scipy.stats` outside functions becomes a function that does just that, and is put off at that place.
* A use of `scipy` becomes `__deferred__("scipy")`, which runs that function if the module has no `scipy` yet.
* A default such as `transformers.CLIPTokenizer` is evaluated by the calls that need it.
* A decorator such as `@torch._dynamo.disable` is applied by the first call of its function.

An import stays as it is if a function or a class of the module has something else of that name, if an annotation has
the name, or if the module looks at its own namespace. A use while the module is being imported, say as a base class,
imports at once. Two things differ from Python's way, before a library was imported: `import *` from such a module
lacks its name, and `typing.get_type_hints` cannot evaluate what `from __future__ import annotations` made text.

It runs in ComfyUI's environment: standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing import TypeAlias

    Import: TypeAlias = ast.Import | ast.ImportFrom
    Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

LIBRARIES = frozenset(
    ("OpenGL", "kornia", "scipy", "spandrel", "torchaudio", "torchsde", "torchvision", "transformers")
)
"""Each takes more than a hundredth of the startup; no other module relies on ComfyUI importing it."""

LAZY_SUBMODULES = frozenset(("torch._dynamo",))
"""Their packages import them by themselves when they are used (torch/__init__.py, `_lazy_modules`)."""

_DEFERRED = "__deferred__"
_LOADER = "__deferred_loader__"
_SEES_ITS_NAMES = {"__getattr__", "dir", "eval", "exec", "globals", "locals", "vars"}
_PATTERNS = (ast.MatchClass, ast.MatchValue, ast.MatchMapping) if sys.version_info >= (3, 10) else ()
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, *_COMPREHENSIONS)
_PLAIN_DECORATORS = {"classmethod", "staticmethod"}
_BACKGROUND_NICENESS = 10
_QUIET_SECONDS, _LONGEST_IMPORT_SECONDS = 0.1, 10.0


class Compiled(NamedTuple):
    """The code of a module, and the modules whose import it puts off, by their full names."""

    code: CodeType
    deferred: tuple[str, ...]


class Later:
    """A default that is not evaluated yet."""

    def __init__(self, evaluate: Callable[[], Any]) -> None:
        self.evaluate = evaluate


class DeferredImports:
    """The `__deferred__` of one module."""

    modules: list[DeferredImports] = []  # noqa: RUF012  in the order of their import

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._nameless: list[Callable[[], None]] = []
        self._loaders_of: dict[str, list[Callable[[], None]]] = {}
        namespace[_DEFERRED] = self
        namespace["__getattr__"] = self._attribute
        self.modules.append(self)

    def put_off(self, names: tuple[str, ...], loader: Callable[[], None]) -> None:
        """What an import that binds `names` became."""
        if not names:
            self._nameless.append(loader)
        for name in names:
            self._loaders_of.setdefault(name, []).append(loader)
            self._namespace.pop(name, None)

    def __call__(self, name: str) -> Any:
        """What the module's `name` is; imports it if need be. Raises NameError."""
        if name not in self._namespace:
            for loader in self._loaders_of.get(name, ()):
                loader()
        if name not in self._namespace:
            raise NameError(f"name {name!r} is not defined")
        return self._namespace[name]

    def load(self) -> None:
        """Import all that is left."""
        for name in self._loaders_of:
            self(name)
        for loader in self._nameless:
            loader()

    def value(self, default: Any) -> Any:
        """The value of an argument whose default may be one for later."""
        return default.evaluate() if type(default) is Later else default

    later = Later

    @staticmethod
    def decorated(evaluate: Callable[[], Any]) -> Callable[[Any], Any]:
        """A decorator that is evaluated and applied when its function is first called."""

        def decorate(function: Any) -> Any:
            made: list[Any] = []

            @functools.wraps(function)
            def call(*arguments: Any, **options: Any) -> Any:
                if not made:
                    made.append(evaluate()(function))
                return made[0](*arguments, **options)

            return call

        return decorate

    def _attribute(self, name: str) -> Any:
        """The module's `__getattr__`: other modules may ask it for a library."""
        if name not in self._loaders_of:
            raise AttributeError(f"module {self._namespace.get('__name__')!r} has no attribute {name!r}")
        return self(name)


def import_all(is_idle: Callable[[], bool]) -> None:
    """Do the imports that are left, in a thread that does nothing else afterwards; each once `is_idle` for a while.

    Python runs one thread at a time: a job that runs meanwhile would take up to twice as long.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)
    for module in DeferredImports.modules:
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + _QUIET_SECONDS:
            time.sleep(_QUIET_SECONDS / 10)
            if not is_idle():
                quiet_since = time.monotonic()
        try:
            with _no_other_imports():
                module.load()
        except Exception:  # noqa: BLE001  as a node that uses it will see, too
            traceback.print_exc()


@contextlib.contextmanager
def _no_other_imports() -> Iterator[None]:
    """Have imports of other threads wait, but not for ever.

    Two threads that import modules of one package, whose modules import each other, see each other's half done:
    Python lets one go on where both would wait for each other ("cannot import name … partially initialized module").
    """
    lock = threading.RLock()

    def waiting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            has_lock = lock.acquire(timeout=_LONGEST_IMPORT_SECONDS)
            try:
                return function(*arguments, **options)
            finally:
                if has_lock:
                    lock.release()

        return call

    real = builtins.__import__, importlib.import_module
    with lock:
        builtins.__import__, importlib.import_module = waiting(real[0]), waiting(real[1])
        try:
            yield
        finally:
            builtins.__import__, importlib.import_module = real


def compile_deferred(source: bytes, file: str, can_defer: Callable[[str], bool]) -> Compiled | None:
    """Compile a module, putting off what can be put off; None if that is nothing.

    `can_defer` is asked for each module that the source would put off, by its full name: whether its import succeeds.
    """
    tree = ast.parse(source, file)
    imports = _deferrable(tree, can_defer)
    lazy = {name for name in LAZY_SUBMODULES if can_defer(name)}
    rewriter = _Rewriter(imports, lazy)
    tree = rewriter.visit(tree)
    deferred = {name for statement in imports for name in _imported(statement)} | rewriter.late_decorators
    if not deferred:
        return None
    code = compile(ast.fix_missing_locations(tree), file, "exec", dont_inherit=True)
    return Compiled(code, tuple(sorted(deferred)))


# --- Which imports ---------------------------------------------------------------------------------------


def _deferrable(tree: ast.Module, can_defer: Callable[[str], bool]) -> list[Import]:
    """The imports outside functions and classes that can be put off."""
    outside = list(_outside_functions(tree))
    found = [node for node in outside if isinstance(node, (ast.Import, ast.ImportFrom)) and _can_wait(node, can_defer)]
    ids = {id(node) for node in outside}
    inside = [node for node in ast.walk(tree) if id(node) not in ids]
    taken = {name for node in inside for name in _names_bound_by(node)}
    are_annotations_text = "annotations" in {
        alias.name
        for line in tree.body
        if isinstance(line, ast.ImportFrom) and line.module == "__future__"
        for alias in line.names
    }
    taken.update(name for node in ast.walk(tree) for name in _names_fixed_by(node, are_annotations_text))
    if any(isinstance(node, ast.Name) and node.id in _SEES_ITS_NAMES for node in ast.walk(tree)):
        return []
    if any(getattr(node, "name", "") in _SEES_ITS_NAMES for node in outside):
        return []
    while True:  # `import scipy.stats` and `import scipy.fft` bind the same name: both or none
        left = [statement for statement in found if not taken.intersection(_bound(statement))]
        if len(left) == len(found):
            return found
        taken.update(name for statement in found if statement not in left for name in _bound(statement))
        found = left


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that belong to a module's own scope."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _SCOPES):
            yield from _outside_functions(child)


def _can_wait(statement: Import, can_defer: Callable[[str], bool]) -> bool:
    modules = _imported(statement)
    if isinstance(statement, ast.Import) and LAZY_SUBMODULES.issuperset(modules):
        is_known = not any(alias.asname for alias in statement.names)
    else:
        is_known = "*" not in _bound(statement) and all(name.partition(".")[0] in LIBRARIES for name in modules)
    return is_known and all(map(can_defer, modules))


def _imported(statement: Import) -> list[str]:
    """The full names of the modules that a statement imports; a relative import has an empty one."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    return ["" if statement.level else str(statement.module)]


def _bound(statement: Import) -> list[str]:
    """The names that it binds: none for a lazy submodule, as its package is imported anyway."""
    if isinstance(statement, ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    aliases = [alias for alias in statement.names if alias.name not in LAZY_SUBMODULES]
    return [alias.asname or alias.name.partition(".")[0] for alias in aliases]


def _names_bound_by(node: ast.AST) -> Iterator[str]:
    """The names that a node binds or deletes in whatever scope."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from _bound(node)
    elif isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (ast.Global, ast.Nonlocal)):
        yield from node.names
    elif not isinstance(node, ast.alias):  # functions, classes, handlers, patterns, type parameters
        for field in ("name", "rest"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value


def _names_fixed_by(node: ast.AST, are_annotations_text: bool) -> Iterator[str]:
    """The names that have to be there, as variables: of a `del`, a pattern, an annotation that may be evaluated."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del):
        yield node.id
    elif isinstance(node, _PATTERNS):
        yield from _names_in(node)
    elif isinstance(node, ast.AnnAssign):  # a dataclass evaluates also text
        yield from _names_in(node.annotation)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
        node.decorator_list or not are_annotations_text
    ):
        owners = (argument for argument in ast.walk(node.args) if isinstance(argument, ast.arg))
        for annotation in (node.returns, *(argument.annotation for argument in owners)):
            if annotation is not None:
                yield from _names_in(annotation)


def _names_in(expression: ast.AST) -> Iterator[str]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value)


# --- What becomes of the module --------------------------------------------------------------------------


class _Rewriter(ast.NodeTransformer):
    """Puts the imports off, and makes the uses of their names `__deferred__("name")`."""

    def __init__(self, imports: list[Import], lazy: set[str]) -> None:
        self._imports = {id(statement) for statement in imports}
        self._names = {name for statement in imports for name in _bound(statement)}
        self._lazy = lazy
        self.late_decorators: set[str] = set()

    def visit_Import(self, node: ast.Import) -> ast.AST | list[ast.stmt]:
        return self._visit_import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | list[ast.stmt]:
        return self._visit_import(node)

    def _visit_import(self, node: Import) -> ast.AST | list[ast.stmt]:
        if id(node) not in self._imports:
            return node
        names = tuple(_bound(node))
        head = f"global {', '.join(names)}" if names else "pass"
        made = ast.parse(f"def {_LOADER}():\n    {head}\n{_DEFERRED}.put_off({names!r}, {_LOADER})").body
        function = made[0]
        assert isinstance(function, ast.FunctionDef)
        function.body.append(node)
        return [ast.copy_location(statement, node) for statement in made]

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._names or not isinstance(node.ctx, ast.Load):
            return node
        return ast.copy_location(ast.parse(f"{_DEFERRED}({node.id!r})", mode="eval").body, node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node  # an annotation that has a deferred name stays text

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._visit_function(node)

    def _visit_function(self, node: Function) -> ast.AST:
        is_plain = all(isinstance(d, ast.Name) and d.id in _PLAIN_DECORATORS for d in node.decorator_list)
        late = list(self._put_off_defaults(node.args)) if is_plain else []
        node.decorator_list = [self._late_decorator(decorator) for decorator in node.decorator_list]
        annotation, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = annotation
        if late:
            start = 1 if ast.get_docstring(node, clean=False) is not None else 0
            prelude = "\n".join(f"{name} = {_DEFERRED}.value({name})" for name in late)
            node.body[start:start] = [ast.copy_location(line, node) for line in ast.parse(prelude).body]
        return node

    def _late_decorator(self, decorator: ast.expr) -> ast.expr:
        text = ast.unparse(decorator) if isinstance(decorator, ast.Attribute) else ""
        module = text.rpartition(".")[0]
        if module not in self._lazy:
            return decorator
        self.late_decorators.add(module)
        late = ast.parse(f"{_DEFERRED}.decorated(lambda: {text})", mode="eval").body
        return ast.copy_location(late, decorator)

    def _put_off_defaults(self, arguments: ast.arguments) -> Iterator[str]:
        """Have defaults that are a deferred name, or an attribute of one, evaluated by the calls; the arguments."""
        positional = [*arguments.posonlyargs, *arguments.args]
        with_default = positional[len(positional) - len(arguments.defaults) :]
        for defaults, owners in ((arguments.defaults, with_default), (arguments.kw_defaults, arguments.kwonlyargs)):
            for index, default in enumerate(defaults):
                if default is not None and self._is_reference(default):
                    late = ast.parse(f"{_DEFERRED}.later(lambda: {ast.unparse(default)})", mode="eval").body
                    defaults[index] = ast.copy_location(late, default)
                    yield owners[index].arg

    def _is_reference(self, expression: ast.expr) -> bool:
        while isinstance(expression, ast.Attribute):
            expression = expression.value
        return isinstance(expression, ast.Name) and expression.id in self._names
