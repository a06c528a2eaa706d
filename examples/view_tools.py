"""A view of one's own: how often each tool was called, how often it failed, and how long it took.

    carstore view agents.db tools --views examples/view_tools.py
"""

from attrs import evolve, frozen

from carstore import Recorded
from carstore.events import ActionExecuting, ActionFailed, ActionSucceeded
from projections import View
from projections.view import Key, Rows, add, run_key


@frozen(kw_only=True)
class Tool:
    """A tool, or a call that is under way.

    An event names the rows it changes, and the end of a call names its action but not its tool. So
    the beginning leaves a row that says which tool it was; the end finds it there.
    """

    tool: str
