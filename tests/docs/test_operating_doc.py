"""docs/operating.md lists exactly the findings of the doctor, and names the numbers of the code."""

import re
from pathlib import Path

from carstore.sqlite.judge_contents import WAL_RESET_BUG_BACKPORTS, WAL_RESET_BUG_FIXED
from carstore.sqlite.judge_file import LITTLE_SPACE_BYTES
from carstore.sqlite.wal import CHECKPOINT_PAGES
from tests.docs.markdown import DOCS, ROOT, body, plain, sections

PAGE = DOCS / "operating.md"
TEXT = " ".join(PAGE.read_text(encoding="utf-8").split())
SOURCES = (
    "carstore/sqlite/doctor.py",
    "carstore/sqlite/judge_file.py",
    "carstore/sqlite/judge_contents.py",
    "engine/cli/doctor.py",
)
CODES = re.compile(r'Finding\(\s*"(\w+)"')


def codes(source: str) -> list[str]:
    return CODES.findall(Path(ROOT / source).read_text(encoding="utf-8"))


def test_every_code_of_the_doctor_is_documented_and_no_other() -> None:
    found = [code for source in SOURCES for code in codes(source)]
    rows = body(sections(PAGE)["Looking after it"], "Code", "Looks at", "If it is not ok")
    listed = [plain(code) for code, _, _ in rows]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(found)


def test_numbers_are_those_of_the_code() -> None:
    assert f"when the WAL has {CHECKPOINT_PAGES:,} pages" in TEXT
    assert f"warns below {LITTLE_SPACE_BYTES // 2**20} MiB, or a tenth" in TEXT
    fixed = ".".join(map(str, WAL_RESET_BUG_FIXED))
    older = " and ".join(".".join(map(str, one)) for one in WAL_RESET_BUG_BACKPORTS)
    assert f"fixed in {fixed} and, in older branches, in {older}" in TEXT
