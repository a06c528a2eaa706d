"""`carstore blobs` and `forget`: what is kept beside the log because it is large or sensitive."""

import click

from carstore import Store, connect
from carstore.blobs import BlobInfo, references_in_text
from carstore.errors import NotFound
from carstore.names import Json, RunId, Scope, StateKey
from engine.cli.errors import BadUsage
from engine.cli.exits import Exit
from engine.cli.options import command_line, database, json_option, reading
from engine.cli.screen import print_json, say, table, text, write
from engine.cli.sharing import check_not_shared
from engine.cli.stopping import run_stoppable
from engine.propose import check_run_id

__all__ = ["blobs", "forget"]

MIN_PREFIX = 6
"""Characters of a hash that are enough to name it, if no other begins with them."""


@click.command()
@database
@click.argument("blob", metavar="[HASH]", required=False)
@json_option
def blobs(database: str, blob: str | None, as_json: bool) -> None:
    """List the values that events of DB refer to by hash, or print the one that begins with HASH.

    Values are there because they are large, or because a tool or a rule calls them sensitive.
    """
    if blob is None:
        found = run_stoppable(_infos(database))
        if as_json:
            print_json([_json(info) for info in found])
        elif not found:
            write("No values are kept beside the log.")
        else:
            rows = [
                [text(info.hash), text(f"{info.bytes:,}"), text("yes" if info.sensitive else "")]
                for info in found
            ]
            table(("HASH", ">BYTES", "SENSITIVE"), rows)
    else:
        print_json(run_stoppable(_value(database, blob)))


async def _infos(path: str) -> list[BlobInfo]:
    async with reading(path) as store:
        return await store.blobs.infos()


async def _value(path: str, prefix: str) -> Json:
    async with reading(path) as store:
        blob = await _named(store, prefix)
        return await store.blobs.fill((await store.blobs.read([blob]))[blob])


def _json(info: BlobInfo) -> Json:
    return {"hash": info.hash, "bytes": info.bytes, "sensitive": info.sensitive}


@click.command()
@database
@click.argument("blob", metavar="[HASH]", required=False)
@click.option("--run", metavar="RUN", help="All values that the events of this run refer to.")
@click.option("--key", metavar="KEY", help="All values that this state key ever had.")
@click.option("--scope", metavar="SCOPE", default="main", help="Of the key (main).")
@click.option("--shared", is_flag=True, help="Also what other runs or keys refer to.")
@click.option("--scrub", is_flag=True, help="Only wipe what an earlier forget had to leave.")
@click.option("--rewrite", is_flag=True, help="Also write the whole file anew; takes its time.")
@click.option("--reason", metavar="TEXT", help="Why; it is recorded.")
@click.option("--by", metavar="NAME", default="somebody", help="Who asks for it; it is recorded.")
@json_option
def forget(
    database: str,
    blob: str | None,
    run: str | None,
    key: str | None,
    scope: str,
    shared: bool,
    scrub: bool,
    rewrite: bool,
    reason: str | None,
    by: str,
    as_json: bool,
) -> int:
    """Delete values of DB that are kept beside the log, for good.

    Name one by the beginning of its HASH, or all of a run, or all of a state key. The events that
    refer to them stay, and so does the chain of hashes. Copies of the file that were made before
    still hold the values.
    """
    given = [one for one in (blob, run, key) if one is not None]
    gone: list[str] = []
    if scrub:
        if given:
            raise BadUsage("--scrub", "give no value with it: it forgets none")
        is_wiped = run_stoppable(_scrub(database, rewrite=rewrite))
    else:
        if len(given) != 1:
            raise BadUsage("[HASH]", "give one of HASH, --run RUN and --key KEY")
        if reason is None:
            raise BadUsage("--reason", "say why; it is recorded")
        run_id = None if run is None else check_run_id(run)
        state_key = None if key is None else (Scope(scope), StateKey(key))
        doing = _forget(database, blob, run_id, state_key, reason, by, shared=shared)
        gone, is_wiped = run_stoppable(doing)
        if rewrite:
            is_wiped = run_stoppable(_scrub(database, rewrite=True))
    _tell(gone, is_wiped=is_wiped, as_json=as_json)
    if not is_wiped:
        again = command_line("forget", database, "--scrub")
        say(
            "What was forgotten is still in the WAL, because another process reads from it; run "
            f"`{again}` when that has ended. `{command_line('doctor', database)}` tells who reads."
        )
    return Exit.DONE if is_wiped else Exit.FAILED


def _tell(gone: list[str], *, is_wiped: bool, as_json: bool) -> None:
    if as_json:
        print_json({"forgotten": list(gone), "wal_emptied": is_wiped})
        return
    for one in gone:
        write(f"forgotten: {one}")
    if is_wiped and not gone:
        write("The WAL is empty: nothing is left of what was forgotten.")


async def _scrub(path: str, *, rewrite: bool) -> bool:
    async with connect(path, create=False, instance="carstore command line") as store:
        return await store.blobs.scrub(rewrite=rewrite)


async def _forget(
    path: str,
    prefix: str | None,
    run: RunId | None,
    key: tuple[Scope, StateKey] | None,
    reason: str,
    by: str,
    *,
    shared: bool,
) -> tuple[list[str], bool]:
    """The hashes of what was forgotten, and whether nothing is left of it."""
    async with connect(path, create=False, instance="carstore command line") as store:
        if prefix is not None:
            wanted = {await _named(store, prefix)}
        else:
            wanted = await _referred(store, run, key)
            if not shared:
                await check_not_shared(store, wanted, run, key)
        is_wiped = await store.blobs.forget(*wanted, reason=reason, by=by)
        return sorted(wanted), is_wiped


async def _referred(
    store: Store, run: RunId | None, key: tuple[Scope, StateKey] | None
) -> set[str]:
    """Those values that events of a run, or of a key, refer to and that are there.

    Raises:
        NotFound: there is none.
    """
    named: set[str] = set()
    async for recorded in store.log.read(run=run, state=key):
        named |= references_in_text(recorded.data)
    found = set(await store.blobs.read(named)) if named else set()
    if not found:
        what = ("run", run) if run is not None else ("state key", key[1] if key else "")
        raise NotFound(f"value beside the log of {what[0]}", str(what[1]), "Nothing was changed.")
    return found


async def _named(store: Store, prefix: str) -> str:
    """The one value whose hash begins with `prefix`.

    Raises:
        NotFound: there is none.
        BadUsage: there are several, or so short a prefix is no name.
    """
    if len(prefix) < MIN_PREFIX:
        raise BadUsage("[HASH]", f"give at least {MIN_PREFIX} characters of the hash")
    found = [one.hash for one in await store.blobs.infos() if one.hash.startswith(prefix)]
    if not found:
        hint = f"{command_line('blobs', store.path)} lists them; it may have been forgotten."
        raise NotFound("value", prefix, hint)
    if len(found) > 1:
        raise BadUsage("[HASH]", f"{len(found)} hashes begin with {prefix}; give more of it")
    return found[0]
