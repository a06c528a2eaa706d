"""`python -m tests.proofs.figures`: put the figures of `docs/proofs.md` where they are told."""

from pathlib import Path

from engine.prove.report import BEGIN, END

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "proofs.md"
PUBLISHED = (ROOT / "README.md", ROOT / "docs" / "guarantees.md")


def block(path: Path) -> str:
    """What stands between the two marks."""
    text = path.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1, path
    return text.partition(BEGIN)[2].partition(END)[0]


def publish() -> None:
    """Copy the block of the page into all others."""
    made = block(PAGE)
    for path in PUBLISHED:
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{BEGIN}{made}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    publish()
