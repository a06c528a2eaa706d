"""The tools of a runtime: a table of names, where it comes from, and the port for the rest."""

import importlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

from attrs import define

from carstore.errors import CarstoreError
from carstore.names import Json
from carstore.python_file import import_failure, import_file, importable
from engine.built_in import BUILT_IN
from engine.declare import Tool, tool
from engine.tool_schema import EffectMode, InvalidTool, RateLimit, ToolSchema

__all__ = [
    "EffectMode",
    "InvalidTool",
    "NoToolExecutor",
    "RateLimit",
    "Tool",
    "ToolExecutor",
    "ToolSchema",
    "Tools",
    "ToolsNotFound",
    "load_tools",
    "tool",
]


class ToolExecutor(Protocol):
    """Carries out the tools that were registered without a function. Source: the seed's trait."""

    async def execute(self, tool: str, params: dict[str, Json]) -> Json:
        """Call `tool` and return its output; whatever it raises is the call's failure."""
        ...


@define(slots=False, eq=False)
class NoToolExecutor(CarstoreError):
    """A tool without a function was called in a runtime without a `ToolExecutor`."""

    code: ClassVar[str] = "no_tool_executor"

    @property
    def message(self) -> str:
        return "no tool executor configured"


@define(slots=False, eq=False)
class ToolsNotFound(CarstoreError):
    """There is no such file or module of tools."""

    code: ClassVar[str] = "tools_not_found"
    spec: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.reason}. Name a FILE.py, or a module that Python can import."

    @property
    def where(self) -> str | None:
        return self.spec


class Tools:
    """A table of tools by name. Names are unique; registered tools stay."""

    def __init__(self, tools: Iterable[Tool | ToolSchema | str] = ()) -> None:
        """Register each of `tools`, as `register` does."""
        self._by_name: dict[str, Tool] = {}
        self.any_sensitive = False
        """Whether any tool names something sensitive."""
        for one in tools:
            self.register(one)

    def register(self, item: Tool | ToolSchema | str) -> Tool:
        """Add a tool, or a schema or bare name that the `ToolExecutor` carries out.

        A compensating tool that was given to `@tool` as an object is added with it.

        Raises:
            InvalidTool: if it is no tool, its schema cannot be used, or its name is taken.
        """
        added = _tool_of(item)
        known = self._by_name.get(added.name)
        if known is added:
            return added
        if known is not None:
            reason = f"there are two tools of this name{_places(known, added)}. Rename one"
            raise InvalidTool(added.name, reason)
        self._by_name[added.name] = added
        self.any_sensitive = self.any_sensitive or bool(added.schema.sensitive)
        if added.undo is not None:
            self.register(added.undo)
        return added

    def get(self, name: str) -> Tool | None:
        """The tool of that name, if there is one; those that are built in come last."""
        return self._by_name.get(name) or BUILT_IN.get(name)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._by_name)

    def schemas(self) -> list[ToolSchema]:
        """All schemas, in the order of registration; what a model is shown."""
        return [one.schema for one in self._by_name.values()]

    def check_compensations(self) -> None:
        """Check that what is to undo a tool is there and takes what it will be handed.

        Raises:
            InvalidTool: naming the tool whose compensation would fail.
        """
        for one in self._by_name.values():
            name = one.schema.compensation
            if name is None:
                continue
            undo = self._by_name.get(name)
            if undo is None:
                reason = f"there is no tool {name!r}, which is to undo it. Register that one too"
                raise InvalidTool(one.name, reason, "compensation")
            if not _takes_what_undoing_needs(undo.schema.parameters):
                reason = (
                    f"{name!r} is to undo it and will be handed `parameters` and `output`, but "
                    f"does not take these two. Write: def {undo.name}(parameters: dict, output)"
                )
                raise InvalidTool(one.name, reason, "compensation")

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)


def load_tools(spec: str) -> Tools:
    """All tools of a Python file or module: each `@tool` at its top level, imported ones too.

    While it is imported, the file's folder (for a module: the working directory) stands first on
    `sys.path`, so that it can import its siblings; afterwards last, for what the tools import when
    they are called.

    Args:
        spec: the path of a `FILE.py`, or the name of a module that can be imported.

    Raises:
        ToolsNotFound: if there is no such file or module.
        InvalidTool: if importing it fails, or it holds no tools, or they do not fit together.
    """
    path = Path(spec)
    if spec.endswith(".py") or os.sep in spec or path.is_file():
        module = _import_file(spec, path)
    else:
        module = _import_module(spec)
    tools = Tools(value for value in vars(module).values() if isinstance(value, Tool))
    if not len(tools):
        raise InvalidTool("", _no_tools_in(module, spec), spec)
    tools.check_compensations()
    return tools


def _no_tools_in(module: ModuleType, spec: str) -> str:
    """What to say of a module without tools. A name may have found another one than was meant."""
    what = "no tools in it. Write @tool above its functions"
    if module.__name__ != spec:
        return what
    found = getattr(module, "__file__", None) or "a part of Python itself"
    return f"this module ({found}) has {what}, or name a file: --tools FILE.py"


def _tool_of(item: Any) -> Tool:
    if isinstance(item, Tool):
        return item
    if isinstance(item, str):
        return Tool(schema=ToolSchema(name=item))
    if isinstance(item, ToolSchema):
        item.compile()
        return Tool(schema=item)
    name = str(getattr(item, "__name__", item))[:128]
    if callable(item):
        raise InvalidTool(name, "is a plain function. Write @tool above it")
    raise InvalidTool(name, f"is of type {type(item).__name__}; tools are made with @tool")


def _takes_what_undoing_needs(schema: dict[str, Json]) -> bool:
    """Whether `{parameters, output}` can pass, as far as the names tell."""
    handed = {"parameters", "output"}
    known, required = schema.get("properties", {}), schema.get("required", [])
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return handed.issuperset(required) and not (closed and handed.difference(known))


def _places(*tools: Tool) -> str:
    """Where the functions of `tools` were written, as far as that is known."""
    codes = [getattr(one.function, "__code__", None) for one in tools]
    known = [f"{code.co_filename}:{code.co_firstlineno}" for code in codes if code is not None]
    return f" ({' and '.join(known)})" if known else ""


def _import_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ToolsNotFound(spec, f"{spec} {what}")
    try:
        return import_file(path)
    except (Exception, SystemExit) as error:
        raise InvalidTool("", import_failure(error, __file__), spec) from error


def _import_module(spec: str) -> ModuleType:
    if not all(part.isidentifier() for part in spec.split(".")):
        raise ToolsNotFound(spec, f"there is no file {spec!r:.200}, and no module has such a name")
    importlib.invalidate_caches()
    try:
        with importable(os.getcwd()):
            return importlib.import_module(spec)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{spec}.".startswith(f"{missing}."):
            raise ToolsNotFound(spec, f"there is no module {spec!r:.200}") from None
        raise InvalidTool("", import_failure(error, __file__), spec) from error
