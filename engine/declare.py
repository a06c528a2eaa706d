"""`@tool`: a function becomes something that plans may call."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from attrs import field, frozen

from carstore.names import Json
from engine.rules.identifiers import problem_with_id
from engine.signature import read_signature
from engine.tool_schema import InvalidTool, RateLimit, ToolSchema

__all__ = ["Tool", "tool"]


@frozen(slots=False, eq=False, kw_only=True)
class Tool:
    """A schema, and the function that does what it says.

    Calling a `Tool` calls the function, as in a test; plans go through `engine.calling`.
    """

    schema: ToolSchema
    function: Callable[..., Any] | None = None
    """None: the runtime's `ToolExecutor` carries it out."""
    is_async: bool = False
    """Whether the function runs on the event loop; others run in a thread."""
    context_parameter: str | None = None
    """The name of the parameter that takes the `ToolContext`."""
    waits: bool = False
    """Whether it is built in and waits, so that nothing is called."""
    undo: "Tool | None" = field(default=None, repr=False)
    """The compensating tool, if it was given as an object and not by name."""

    if TYPE_CHECKING:  # taken over from the function
        __name__: str
        __wrapped__: Callable[..., Any]

    def __attrs_post_init__(self) -> None:
        for name in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.function, name):
                self.__dict__[name] = getattr(self.function, name)
        self.__dict__["__wrapped__"] = self.function

    @property
    def name(self) -> str:
        """What plans call it."""
        return self.schema.name

    @property
    def takes_context(self) -> bool:
        """Whether the function is handed the `ToolContext`."""
        return self.context_parameter is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as it was written."""
        if self.function is None:
            raise TypeError(f"tool {self.name!r} has no function; a ToolExecutor carries it out")
        return self.function(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: dict[str, Json] | None = None,
    returns: dict[str, Json] | None = None,
    idempotent: bool = False,
    read_only: bool = False,
    compensation: "str | Tool | None" = None,
    timeout_ms: int | None = None,
    cache_ttl_secs: int | None = None,
    rate_limit: RateLimit | None = None,
    sensitive: Collection[str] = (),
    max_cost: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: dict[str, Json] | None = None,
    returns: dict[str, Json] | None = None,
    idempotent: bool = False,
    read_only: bool = False,
    compensation: "str | Tool | None" = None,
    timeout_ms: int | None = None,
    cache_ttl_secs: int | None = None,
    rate_limit: RateLimit | None = None,
    sensitive: Collection[str] = (),
    max_cost: Mapping[str, str] = MappingProxyType({}),
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, bare (`@tool`) or with arguments (`@tool(idempotent=True)`).

    Args:
        name: what plans call it; else the function's name.
        description: what models are told; else the first paragraph of the docstring.
        parameters: JSON Schema of the parameters; else read from the type hints.
        returns: JSON Schema of the output; else read from the return hint, where it can be.
        idempotent: two calls with one idempotency key do what one call does.
        read_only: a call changes nothing.
        compensation: the tool that undoes a call, by name or itself; handed `{parameters, output}`.
        timeout_ms: how long a call may take, unless its action says otherwise.
        cache_ttl_secs: for how long an output may be given again for the same parameters.
        rate_limit: how many calls within how many seconds.
        sensitive: what must be possible to forget, and is kept beside the log and out of messages:
            `["parameters.password", "output.token"]`; `*` is each item of a list.
        max_cost: what one call costs at most, by unit: `{"USD": "0.05"}`. It is set aside from the
            budgets of a run before the call.

    Raises:
        InvalidTool: if the function cannot be called by name with JSON, saying what to change.
    """
    undo = compensation if isinstance(compensation, Tool) else None

    def declare(function: Callable[..., Any]) -> Tool:
        checked = _checked_name(function, name)
        signature = read_signature(function, checked, parameters)
        schema = ToolSchema(
            name=checked,
            description=_description(function) if description is None else description,
            parameters=signature.parameters,
            returns=signature.returns if returns is None else returns,
            idempotent=idempotent,
            read_only=read_only,
            compensation=compensation.name if isinstance(compensation, Tool) else compensation,
            timeout_ms=timeout_ms,
            cache_ttl_secs=cache_ttl_secs,
            rate_limit=rate_limit,
            sensitive=tuple(sensitive),
            max_cost=dict(max_cost),
        )
        if parameters is not None or returns is not None:
            schema.compile()  # what hints spell out is valid, and compiled when first needed
        return Tool(
            schema=schema,
            function=function,
            is_async=_is_async(function),
            context_parameter=signature.context_parameter,
            undo=undo,
        )

    return declare if function is None else declare(function)


def _checked_name(function: Any, name: str | None) -> str:
    shown = str(getattr(function, "__name__", function) if name is None else name)[:128]
    if not callable(function):
        raise InvalidTool(shown, "is no function. Write @tool or @tool(name=...) above one")
    if isinstance(function, Tool | type):
        kind = "a tool already" if isinstance(function, Tool) else "a class, not a function"
        raise InvalidTool(shown, f"is {kind}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTool(shown, "yields its output in parts. Return one JSON value instead")
    checked = shown if name is None else name
    problem = problem_with_id(checked)
    if problem is not None:
        raise InvalidTool(shown, f"its name {problem}. Give another: @tool(name=...)")
    return checked


def _description(function: Callable[..., Any]) -> str:
    """The first paragraph of the docstring, as one line."""
    # The docstring of a callable object is that of its class, which says something else.
    text = inspect.getdoc(function) if inspect.isroutine(function) else None
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _is_async(function: Callable[..., Any]) -> bool:
    called = function.func if isinstance(function, functools.partial) else function
    return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(
        getattr(called, "__call__", None)  # noqa: B004 - an object may be called through one
    )
