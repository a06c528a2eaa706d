"""The table: every case of every topic, in the order of the files."""

from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["CASES", "TOPICS"]

Case = dict[str, Any]

TOPICS: dict[str, list[Case]] = {
    path.stem: import_module(f"tests.conformance.cases.{path.stem}").CASES
    for path in sorted((Path(__file__).parent / "cases").glob("*.py"))
}
"""Name of the file -> its cases."""

CASES: list[Case] = [case for cases in TOPICS.values() for case in cases]
