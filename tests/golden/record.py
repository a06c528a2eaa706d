"""What a golden log holds: its head, and the rows of every view, as JSON beside it."""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from carstore import Store, connect
from projections import VIEWS, View, checksum
from projections.memory import fold_into

FOLDER = Path(__file__).parent


def path_of(schema: int) -> Path:
    """The golden log of a schema."""
    return FOLDER / f"schema_{schema}.db"


def load(path: Path) -> dict[str, Any]:
    """What is recorded of a golden log."""
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def name_of(view: View[Any, Any]) -> str:
    return f"{view.name} v{view.version}"


async def folded(store: Store, view: View[Any, Any]) -> dict[str, Any]:
    """The rows of a view, folded from the first event, and their checksum."""
    rows: dict[Any, Any] = {}
    async for page in store.log.pages():
        fold_into(rows, view, page)
    ordered = [list(view.values_of(rows[key])) for key in sorted(rows)]
    return {"checksum": checksum(view, rows), "rows": ordered}


async def _contents(path: Path) -> dict[str, Any]:
    async with connect(path, readonly=True) as store:
        position, digest = await store.log.head()
        views = {name_of(view): await folded(store, view) for view in VIEWS}
    return {"head": {"position": position, "hash": digest}, "views": views}


def add(path: Path) -> None:
    """Record a golden log, or what was not yet recorded of it; what is recorded stays."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_contents(Path(shutil.copy(path, folder))))
    file = path.with_suffix(".json")
    if file.exists():
        recorded = load(path)
        found["views"] |= recorded["views"]
        found["head"] = recorded["head"]
    lines = json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True)
    file.write_text(lines + "\n", encoding="utf-8")
