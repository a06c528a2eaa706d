"""Importing a Python file that somebody names: one of tools, or one of views."""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

__all__ = ["import_failure", "import_file", "importable"]


def import_file(path: Path) -> ModuleType:
    """The module that a file makes, which stays in `sys.modules` if that went well.

    While it is imported, its folder stands first on `sys.path`, so that it can import its siblings;
    afterwards last, for what is imported later.

    Raises:
        Exception, SystemExit: whatever the file raises; `import_failure` tells where.
    """
    path = path.resolve()
    name = _module_name(path)
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # only a loader that cannot tell packages makes it None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        with importable(str(path.parent)):
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


@contextlib.contextmanager
def importable(folder: str) -> Iterator[None]:
    """Let modules of `folder` be imported: before all others meanwhile, after all others then."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def import_failure(error: BaseException, importer: str) -> str:
    """What went wrong, at which line of the file, and where else if it was elsewhere.

    Args:
        importer: the `__file__` of the module that asked for the import.
    """
    what = f"{type(error).__name__}: {error}"[:500]
    machinery = (__file__, importlib.__file__, importer)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in machinery and not frame.filename.startswith("<frozen ")
    ]
    if not frames:  # the file itself could not be compiled
        at = f" at line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"importing it failed{at}: {what}"
    first, last = frames[0], frames[-1]
    text = f"importing it failed at line {first.lineno}: {what}"
    if last.filename != first.filename:
        text += f" ({last.filename}, line {last.lineno})"
    return text


def _module_name(path: Path) -> str:
    """The file's own name, as siblings and child processes know it, unless that is taken."""
    known = sys.modules.get(path.stem)
    ours = known is None or getattr(known, "__file__", None) == str(path)
    if path.stem.isidentifier() and path.stem not in sys.stdlib_module_names and ours:
        return path.stem
    return f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
