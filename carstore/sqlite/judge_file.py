"""Judgements about a file from outside, and about its WAL: pure functions of what `facts` and
`wal_facts` have read, one for each code of docs/operating.md."""

from collections.abc import Iterator, Mapping, Sequence

from carstore.sqlite.facts import FileFacts, Mount
from carstore.sqlite.findings import Finding
from carstore.sqlite.wal import CHECKPOINT_PAGES
from carstore.sqlite.wal_facts import Reader, WalFile

LARGE_WAL_PAGES = 4 * CHECKPOINT_PAGES
"""A WAL that is emptied in time stays near `CHECKPOINT_PAGES`."""

PAGE_BYTES = 4096
"""What SQLite takes for a new file."""

LITTLE_SPACE_BYTES = 64 * 2**20
"""The WAL with some room to grow."""

_NETWORK = frozenset(
    [
        *("nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "afpfs"),
        *("coda", "webdav", "davfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "beegfs"),
        *("gpfs", "ocfs2", "gfs2", "orangefs"),
    ]
)
_NETWORK_FUSE = ("sshfs", "s3", "gcs", "rclone", "gluster", "ceph", "davfs", "blob", "smb")
_VOLATILE = frozenset({"tmpfs", "ramfs"})


def judge_file(facts: FileFacts) -> Iterator[Finding]:
    """All that needs no more than a look at the file."""
    yield judge_header(facts)
    yield judge_journal_mode(facts)
    yield judge_place(facts.mount)
    yield judge_space(facts)
    yield judge_permissions(facts)
    yield judge_names(facts)
    yield judge_journal(facts)


def judge_header(facts: FileFacts) -> Finding:
    header = facts.header
    if not facts.readable:
        return Finding(
            "file", "fault", "the file cannot be read by this user", "Ask its owner for the right."
        )
    if facts.bytes == 0:
        return Finding(
            "file",
            "fault",
            "the file is empty",
            "Restore a backup; or, if it never held anything, delete it.",
        )
    if header is None:
        return Finding(
            "file",
            "fault",
            "the file does not begin as a SQLite database does",
            "If it was one: copy it away, try `carstore salvage`, or restore a backup.",
        )
    size, whole = header.page_size, header.page_size * header.pages
    # With a WAL, the file may be in the middle of being extended, or of what a crash left of that.
    settled = not facts.wal_bytes
    if size == 0 or (settled and facts.bytes % size):
        return Finding(
            "file",
            "fault",
            f"the file has {facts.bytes:,} bytes, which are not pages of {size:,}: "
            "it was cut off, or its header is damaged",
            "Run `carstore verify`, then `carstore salvage`, or restore a backup.",
        )
    if settled and facts.bytes < whole:
        return Finding(
            "file",
            "fault",
            f"the file has {facts.bytes:,} bytes, but says that it has {whole:,}: it was cut off",
            "Run `carstore verify`, then `carstore salvage`, or restore a backup.",
        )
    if size != PAGE_BYTES:
        return Finding(
            "file",
            "note",
            f"{facts.bytes:,} bytes in pages of {size:,}; carstore makes files with pages of "
            f"{PAGE_BYTES:,}, and its limits of the WAL count these",
        )
    return Finding("file", "ok", f"{facts.bytes:,} bytes in pages of {size:,}")


def judge_journal_mode(facts: FileFacts) -> Finding:
    if facts.header is None or facts.header.wal:
        known = "the file is used with a WAL" if facts.header else "not known"
        return Finding("journal_mode", "ok", known)
    return Finding(
        "journal_mode",
        "note",
        "the file is set to be used without a WAL, as a copy is until carstore writes to it",
        "Nothing if it is a copy. Else some program changed that: find out which.",
    )


def judge_place(mount: Mount) -> Finding:
    kind, point = mount.kind, mount.point
    if kind in _NETWORK or (kind.startswith("fuse") and any(n in kind for n in _NETWORK_FUSE)):
        return Finding(
            "file_system",
            "fault",
            f"the file is on {point!r}, a network file system ({kind}), whose locks and syncs do "
            "not keep what SQLite needs",
            "Move the file to a local disk; let other machines ask a process on this one.",
        )
    if kind in _VOLATILE:
        return Finding(
            "file_system",
            "warning",
            f"the file is in memory ({kind} on {point!r}): it is gone after a reboot",
            "Move the file to a disk.",
        )
    if kind == "overlay":
        return Finding(
            "file_system",
            "note",
            "the file is in the writable layer of a container (overlay): it goes with it",
            "Keep the file on a volume.",
        )
    if kind.startswith("fuse"):
        return Finding(
            "file_system",
            "note",
            f"the file is on {point!r}, a file system of a program ({kind})",
            "Find out whether its locks and syncs are real; else move the file to a local disk.",
        )
    if not kind:
        return Finding("file_system", "note", "this system does not tell what kind it is")
    return Finding("file_system", "ok", f"{kind} on {point}")


def judge_space(facts: FileFacts) -> Finding:
    free, size = facts.free_bytes, facts.bytes
    what = f"{free:,} bytes are free, the file has {size:,}"
    if free < LITTLE_SPACE_BYTES // 4:
        return Finding("free_space", "fault", what, "Free some space now: appends will fail.")
    if free < max(LITTLE_SPACE_BYTES, size // 10):
        return Finding("free_space", "warning", what, "Free some space, or move the file.")
    if free < size:
        return Finding(
            "free_space", "note", what, "A backup or a rebuild of all views may not fit beside it."
        )
    return Finding("free_space", "ok", what)


def judge_permissions(facts: FileFacts) -> Finding:
    if facts.others_may_write:
        return Finding(
            "permissions",
            "warning",
            "every user of this machine may change the file",
            f"chmod o-w {facts.path}",
        )
    if not facts.writable:
        return Finding("permissions", "note", "this user may only read the file")
    if not facts.folder_writable:
        return Finding(
            "permissions",
            "warning",
            "this user may write the file, but not its folder, where SQLite keeps the WAL",
            "Give the user the right to write the folder.",
        )
    if facts.unwritable_beside:
        names = " and ".join(facts.unwritable_beside)
        return Finding(
            "permissions",
            "warning",
            f"this user may write the file, but not {names}: another user made them",
            "Let all programs that use the file run as one user, or as one group with umask 002.",
        )
    return Finding("permissions", "ok", "this user may read and write the file and its folder")


def judge_names(facts: FileFacts) -> Finding:
    if facts.links > 1:
        return Finding(
            "names",
            "warning",
            f"the file has {facts.links} names (hard links); under another name it is read and "
            "written without its WAL, and is damaged by that",
            "Delete all names but one while nobody uses the file.",
        )
    return Finding("names", "ok", "the file has one name")


def judge_journal(facts: FileFacts) -> Finding:
    if facts.journal_bytes:
        return Finding(
            "journal",
            "warning",
            f"there is a rollback journal of {facts.journal_bytes:,} bytes beside the file: some "
            "program that switched the WAL off was killed, or the journal is of another file",
            "If it was copied here by itself, move it away. Else the next program that opens the "
            "file undoes what that program had not finished.",
        )
    return Finding("journal", "ok", "no rollback journal is left over")


# --- the WAL ---


def judge_wal_size(wal: WalFile | None, file_bytes: int) -> Finding:
    if wal is None:
        return Finding("wal_size", "ok", "the WAL is empty")
    what = f"{wal.frames:,} pages in the WAL, whose file has {wal.bytes:,} bytes"
    if wal.frames > LARGE_WAL_PAGES:
        return Finding(
            "wal_size",
            "warning",
            f"{what}; it should be emptied at {CHECKPOINT_PAGES:,}",
            "See `readers` for who holds it back. If nobody does, open and close the file for "
            "writing once, for example with `carstore rebuild`.",
        )
    if wal.bytes > 2 * file_bytes and wal.bytes > LARGE_WAL_PAGES * 4096:
        return Finding(
            "wal_size",
            "note",
            f"{what}; it was large once, and keeps its size",
            "It goes when the last program closes the file.",
        )
    return Finding("wal_size", "ok", what)


def judge_wal_content(wal: WalFile | None) -> Finding:
    """Whether the WAL is as it was written: SQLite ignores it from the first damage on, and says
    nothing."""
    if wal is None:
        return Finding("wal_content", "ok", "the WAL is empty")
    if wal.in_use:
        what = "the WAL is being written to, and could not be checked"
        return Finding("wal_content", "note", what, "Try again when less is written.")
    if not wal.header_ok:
        return Finding(
            "wal_content",
            "fault",
            "the header of the WAL is damaged, so SQLite ignores all of it: whatever was committed "
            "since the last checkpoint is lost",
            "Copy the file and its WAL away. Compare with a head that was kept elsewhere: "
            "`carstore verify --head`. Restore a backup, or go on with what is left.",
        )
    if not wal.checked:
        what = f"not checked: {wal.frames:,} pages"
        return Finding("wal_content", "ok", what, "`--deep` checks them.")
    if wal.commits_lost:
        return Finding(
            "wal_content",
            "fault",
            f"page {wal.valid + 1:,} of the WAL is damaged, and SQLite ignores it and all that "
            f"follows: {wal.commits_lost:,} transactions",
            "Copy the file and its WAL away before anything opens it. Compare with a head that was "
            "kept elsewhere: `carstore verify --head`. Restore a backup, or go on with what is "
            "left. With durability `crash` this can also be what a loss of power left.",
        )
    if wal.valid < wal.frames:
        return Finding(
            "wal_content",
            "note",
            "the WAL ends within a transaction that was never acknowledged; it is ignored",
        )
    return Finding("wal_content", "ok", f"{wal.valid:,} pages are as they were written")


def judge_readers(readers: Sequence[Reader], wal: WalFile | None) -> Finding:
    if not readers:
        return Finding("readers", "ok", "no reader is known to hold the WAL back")
    told = "; ".join(f"{one.process} reads as of {one.behind:,} pages ago" for one in readers[:5])
    is_large = wal is not None and wal.frames > LARGE_WAL_PAGES
    return Finding(
        "readers",
        "warning" if is_large else "note",
        f"the WAL cannot begin anew while a transaction is open: {told}",
        "Let that program finish its transaction, or end it." if is_large else "",
    )


def judge_processes(open_in: Mapping[int, str]) -> Finding:
    if not open_in:
        return Finding("processes", "ok", "no process is known to have the file open")
    names = sorted(open_in.values())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return Finding("processes", "ok", f"open in {', '.join(names[:8])}{more}")
