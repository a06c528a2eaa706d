"""The plan of the demonstration, made of what a folder holds. Nothing is read or written here.

What waits for what:

    hash:0001 -> count:0001 -> lines:Python ...                        -> report
              -> files, duplicates, largest -> section:1 -> :2 -> :3   -> report
    prices (refused once, tried again)      -> section:1
    classify:0001                                                      -> report
    files -> check:files    report, check:files -> publish -> check:published
"""

from carstore.names import is_output_reference
from engine.demo.languages import language_of
from engine.demo.walk import FoundFile, Listing
from engine.ir import Action, ActionType, FailureBehavior, Proposal, Reversibility

__all__ = ["CONCURRENCY", "RUN_ID", "make_plan"]

RUN_ID = "demo"
"""The id of the one run. Executing it again under this id goes on with it."""

CONCURRENCY = 8
"""Calls in flight at once: what is repeated after a kill is at most this many."""

MAX_CLASSIFIED = 64
"""Files shown to the model: it is what takes time, as with real ones."""

READING_MS = 1_200
"""How long the classifying takes together, whatever the folder: time to watch, and to be killed."""

MAX_LATENCY_MS = 250
"""Of one classification, where there are few."""

SECTION_MS = 150
"""Of each of the three sections that the writer writes one after the other."""

SECTIONS = (("contents", "files"), ("duplicates", "duplicates"), ("sizes", "largest"))
"""The topic of each section, and the action whose output it is about."""


def make_plan(listing: Listing, report_file: str, *, slowness: int = 1) -> Proposal:
    """The proposal for what was found.

    Args:
        report_file: where the report is published, absolute.
        slowness: how many times longer than usual the models take.
    """
    numbered = [(f"{number:04}", file) for number, file in enumerate(listing.files, 1)]
    shown = numbered[:: max(1, -(-len(numbered) // MAX_CLASSIFIED))]
    each_ms = min(MAX_LATENCY_MS, READING_MS * CONCURRENCY // max(1, len(shown))) * slowness
    asked = {number for number, _ in shown}
    actions = [
        _state("note:folder", ActionType.STATE_WRITE, "demo/folder", value=listing.root),
        _state("note:files", ActionType.STATE_WRITE, "demo/files", value=len(numbered)),
        Action(id="prices", tool="prices", failure_behavior=FailureBehavior.RETRY),
    ]
    for number, file in numbered:
        actions.append(_hash(number, file, listing.root))
        if number in asked:
            actions.append(_classify(number, file, each_ms))
    actions += [_count(number, file, listing.root) for number, file in numbered]
    actions += _findings([number for number, _ in numbered])
    actions += _sums(numbered)
    actions += _sections(SECTION_MS * slowness)
    actions += _publication(listing, [number for number, _ in shown], numbered, report_file)
    return Proposal(id=RUN_ID, source="demo", actions=actions)


def _hash(number: str, file: FoundFile, folder: str) -> Action:
    parameters = {"folder": folder, "path": _literal(file.path)}
    return Action(id=f"hash:{number}", tool="hash_file", parameters=parameters)


def _classify(number: str, file: FoundFile, latency_ms: int) -> Action:
    parameters = {"path": _literal(file.path), "size": file.bytes, "latency_ms": latency_ms}
    return Action(id=f"classify:{number}", tool="classify", parameters=parameters)


def _count(number: str, file: FoundFile, folder: str) -> Action:
    return Action(
        id=f"count:{number}",
        tool="count",
        parameters={
            "folder": folder,
            "path": _literal(file.path),
            "language": language_of(file.path),
            "sha256": f"$hash:{number}.output.sha256",
        },
    )


def _findings(numbers: list[str]) -> list[Action]:
    hashes = {"hashes": [f"$hash:{number}.output" for number in numbers]}
    return [
        Action(id="files", tool="all_files", parameters=hashes),
        Action(id="duplicates", tool="duplicates", parameters=hashes),
        Action(id="largest", tool="largest", parameters=hashes),
        _state(
            "check:files",
            ActionType.ASSERTION,
            "files/looked_into",
            expected=len(numbers),
            after=("files",),
        ),
    ]


def _languages(numbered: list[tuple[str, FoundFile]]) -> list[str]:
    """Each language there is by name; and what is binary, which only a look at the bytes tells."""
    named = sorted({language_of(file.path) for _, file in numbered})
    return [*named, "binary"] if named else []


def _sums(numbered: list[tuple[str, FoundFile]]) -> list[Action]:
    return [
        Action(
            id=_sum_of(language),
            tool="add_up",
            parameters={
                "language": language,
                "counts": [
                    f"$count:{number}.output"
                    for number, file in numbered
                    if language in ("binary", language_of(file.path))
                ],
            },
        )
        for language in _languages(numbered)
    ]


def _sum_of(language: str) -> str:
    return f"lines:{language.replace('+', 'p').replace('#', '-sharp')}"


def _sections(latency_ms: int) -> list[Action]:
    return [
        Action(
            id=f"section:{place}",
            tool="write_section",
            parameters={
                "topic": topic,
                "facts": f"${source}.output",
                "price": "$prices.output",
                "latency_ms": latency_ms,
            },
            dependencies=[f"section:{place - 1}"] if place > 1 else [],
        )
        for place, (topic, source) in enumerate(SECTIONS, 1)
    ]


def _publication(
    listing: Listing,
    shown: list[str],
    numbered: list[tuple[str, FoundFile]],
    report_file: str,
) -> list[Action]:
    content = {
        "folder": _literal(listing.root),
        "sections": [f"$section:{place}.output" for place in range(1, len(SECTIONS) + 1)],
        "languages": [f"${_sum_of(language)}.output" for language in _languages(numbered)],
        "purposes": [f"$classify:{number}.output" for number in shown],
        "biggest": "$largest.output",
        "same": "$duplicates.output.groups",
        "unread": "$files.output.unread",
        "left_out": [
            {"path": _literal(one.path), "reason": one.reason} for one in listing.left_out
        ],
        "notes": _notes(listing),
    }
    return [
        Action(id="report", tool="compose", parameters=content),
        Action(
            id="publish",
            tool="publish",
            parameters={"file": report_file, "text": "$report.output"},
            dependencies=["check:files"],
            expected_effects={"report/published": True},
            reversibility=Reversibility.COMPENSABLE,
        ),
        # It waits for `publish`, the nearest writer of this key, without being told to.
        _state("check:published", ActionType.ASSERTION, "report/published", expected=True),
    ]


def _notes(listing: Listing) -> list[str]:
    notes = []
    if listing.is_cut:
        notes.append(f"The folder is huge: only the first {listing.seen:,} files were counted.")
    if listing.beyond:
        notes.append(f"{listing.beyond:,} further files were not looked into.")
    if listing.left_out_count > len(listing.left_out):
        notes.append(f"{listing.left_out_count:,} were left out, of which some are named below.")
    return notes


def _state(
    name: str, kind: ActionType, key: str, after: tuple[str, ...] = (), **parameters: object
) -> Action:
    return Action(id=name, type=kind, parameters={"key": key, **parameters}, dependencies=after)


def _literal(text: str) -> str:
    """Text that a plan hands on as it is, also if it looks like a reference to an output."""
    return f"${text}" if is_output_reference(text) else text
