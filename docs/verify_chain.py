"""Verify the hash chain of a carstore file with nothing but the standard library.

    python3 docs/verify_chain.py DB [--head POSITION:HASH]

Exit code 0: every event is the one its hash was made for, and none is missing (with --head: also
not at the end). 1: that is not so. 2: bad usage. Nothing is written. `carstore verify` checks more.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import sys
import urllib.parse

EVENTS = """
    SELECT prev_hash, position, name, version, kind, schema_version, recorded_at, run_id, scope,
           key, fence, fence_token, data, hash
    FROM events LEFT JOIN streams USING (stream_id) ORDER BY position
"""


class Broken(Exception):
    pass


def check(connection, wanted):
    """The head (position, hash) of a log without fault; raises Broken at the first fault."""
    position, digest, versions = 0, "0" * 64, {}
    rows = connection.execute(EVENTS)
    while row := fetched(rows, position + 1):
        prev_hash, found, stream, version, *_, stored = row
        if found != position + 1:
            raise Broken(f"event {position + 1} is missing: {found!r} comes next")
        position += 1
        if stream is None or version != versions.get(stream, 0) + 1:
            raise Broken(f"event {position} is version {version!r} of stream {stream!r}")
        versions[stream] = version
        if prev_hash != digest:
            raise Broken(f"event {position} does not continue event {position - 1}")
        text = json.dumps(row[:-1], ensure_ascii=False, separators=(",", ":"), default=repr)
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
        if digest != stored:
            raise Broken(f"event {position} is not the one its hash was made for")
        if wanted and position == wanted[0] and digest != wanted[1]:
            raise Broken(f"event {position} has the hash {digest}, not {wanted[1]}")
    if position < max(1, wanted[0] if wanted else 1):
        raise Broken(f"the log ends at position {position}")
    return position, digest


def fetched(rows, position):
    try:
        return rows.fetchone()
    except (sqlite3.Error, UnicodeError) as error:
        raise Broken(f"event {position} cannot be read: {error}") from None


def opened(path):
    """A connection that cannot write. Where there is no room for the shared memory of a WAL, a file
    without a WAL is read as it stands."""
    uri = f"file:{urllib.parse.quote(os.fsencode(os.path.abspath(path)))}?mode=ro"
    if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        uri += "" if os.path.exists(path + "-wal") else "&immutable=1"
    return sqlite3.connect(uri, uri=True)


def head(text):
    position, _, digest = text.strip().replace(" ", ":").partition(":")
    if not (position.isascii() and position.isdecimal()) or not 0 < int(position[:20]) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not POSITION:HASH")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not POSITION:HASH, with 64 hex digits")
    return int(position), digest


def main():
    parser = argparse.ArgumentParser(description="Verify the hash chain of a carstore file.")
    parser.add_argument("db")
    parser.add_argument("--head", type=head, metavar="POSITION:HASH", help="kept from earlier")
    asked = parser.parse_args()
    if not os.path.isfile(asked.db):
        parser.error(f"there is no file {asked.db!r}")
    try:
        print("ok: the chain is whole up to", *check(opened(asked.db), asked.head))
    except (Broken, sqlite3.Error, UnicodeError, OverflowError) as error:
        sys.exit(f"not ok: {error}".encode("ascii", "backslashreplace").decode())


if __name__ == "__main__":
    main()
