"""`carstore prove`: what it takes, what it tells, and how it ends."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from engine.cli.told import tell_own
from engine.prove import catalog
from engine.prove.broken import BREAKAGES
from engine.prove.conduct import Conducted
from engine.prove.proof import Outcome, Progress, Proof, Scale
from tests.engine.cli.harness import Done, Folder, call, cli, command, environment, plan, process

pytestmark = pytest.mark.slow

LOOKS = plan(*[call(f"a{n}", "nap", *([f"a{n - 1}"] if n else []), ms=30) for n in range(3)])


def made_up(name: str, *broken: str, skipped: str | None = None) -> Proof:
    def run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        progress("trying")
        return Outcome(figures={"tries": 1_234, "ms": 0.5}, broken=broken, skipped=skipped)

    return Proof(name, f"{name} holds.", run)


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> list[Proof]:
    """The proofs there are; to be filled."""
    found: list[Proof] = []
    monkeypatch.setattr(catalog, "proofs", lambda kills=None: tuple(found))
    return found


def test_one_proof_is_run_and_told(folder: Folder) -> None:
    done = cli("prove", "--only", "settings", "--scale", "short", "--seed", "4")
    assert done.code == 0
    assert "settings" in done.stdout
    assert "times tried: 1" in done.stdout
    assert "noticed" in done.stdout
    assert "seed 4" in done.stderr
    assert [one.name for one in folder.path.iterdir()] == ["tools.py"]


def test_names_may_be_written_with_hyphens(folder: Folder) -> None:
    done = cli("prove", "--only", "clock-steps", "--scale", "short", "--no-broken", "--json")
    assert [one["name"] for one in done.json["proofs"]] == ["clock steps"]
    assert done.json["broken_on_purpose"] == []


def test_the_same_seed_tries_the_same(folder: Folder) -> None:
    def figures() -> object:
        options = ("--only", "clock steps", "--scale", "short", "--no-broken", "--seed", "9")
        return cli("prove", *options, "--json").json["proofs"][0]["figures"]

    assert figures() == figures()


def test_a_broken_promise_ends_with_1_and_keeps_the_files(
    folder: Folder, catalogue: list[Proof]
) -> None:
    catalogue += [made_up("good"), made_up("bad", "it was \x1b[31mnot so")]
    done = cli("prove", "--scale", "short", "--no-broken")
    assert done.code == 1
    assert "BROKEN: bad: it was \\x1b[31mnot so" in done.stdout
    [kept] = [line for line in done.stdout.splitlines() if line.startswith("The files are kept in")]
    Path(kept.removeprefix("The files are kept in ")).rmdir()


def test_a_proof_that_cannot_fail_ends_with_1(folder: Folder, catalogue: list[Proof]) -> None:
    catalogue.append(made_up("fence"))
    done = cli("prove", "--scale", "short", "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    assert done.json["proofs"][0]["holds"] is True
    [tried] = done.json["broken_on_purpose"]
    assert (tried["name"], tried["noticed"]) == ("no fence", False)
    assert cli("prove", "--scale", "short", "--no-broken").code == 0


def test_what_cannot_be_tried_is_skipped_with_its_reason(
    folder: Folder, catalogue: list[Proof]
) -> None:
    catalogue.append(made_up("fence", skipped="needs a C compiler"))
    done = cli("prove", "--scale", "short", "--report", "page.md")
    assert done.code == 0
    assert "skipped: needs a C compiler" in done.stdout
    page = (folder / "page.md").read_text()
    assert "| fence | fence holds. | not tried |" in page
    assert "### fence\n\nskipped: needs a C compiler\n" in page


def test_the_report_holds_figures_seed_and_machine(folder: Folder, catalogue: list[Proof]) -> None:
    catalogue.append(made_up("fence", "oh"))
    assert cli("prove", "--seed", "77", "--report", "page.md", "--json").code == 1
    page = (folder / "page.md").read_text()
    assert "| fence | fence holds. | **no** |" in page
    assert "### fence\n\n* tries: 1,234\n* ms: 0.50\n" in page
    assert "seed 77" in page
    assert "CPUs" in page
    assert "SQLite" in page
    assert f"| no fence | {BREAKAGES['no fence'].what} | fence | yes |" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "nonsense"), "there are: kills"),
        (("--plan", "plan.json"), "belong together"),
        (("--tools", "tools.py"), "belong together"),
        (("--on-doubt", "retry"), "needs --plan"),
        (("--plan", "plan.json", "--tools", "tools.py", "--only", "kills"), "leave it out"),
        (("--plan", "none.json", "--tools", "tools.py"), "none.json"),
        (("--plan", "tools.py", "--tools", "tools.py"), "JSON"),
        (("--plan", "plan.json", "--tools", "none.py"), "none.py does not exist"),
        (("--plan", "other.json", "--tools", "tools.py"), "has no tool missing"),
        (("--report", "no/folder/page.md"), "does not exist"),
        (("--report", "tools.py/page.md"), "cannot be written"),
        (("--only", "fence", "--kills", "5"), "--only leaves out"),
        (("--kills", "0"), "0"),
        (("--scale", "huge"), "huge"),
        (("agents.db",), "unexpected extra argument"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_is_tried(
    folder: Folder, options: tuple[str, ...], said: str
) -> None:
    folder.plan(LOOKS)
    folder.plan(plan(call("m", "missing")), "other.json")
    done = cli("prove", *options)
    assert done.code == 2, done
    assert said in done.stderr
    assert done.stdout == ""


def test_a_report_that_cannot_be_written_at_the_end_does_not_lose_the_figures(
    folder: Folder, catalogue: list[Proof], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    catalogue.append(made_up("good"))
    (folder / "page.md").write_text("before")
    monkeypatch.setattr(Path, "write_text", full)
    done = cli("prove", "--no-broken", "--report", "page.md", "--json")
    assert done.code == 1
    assert done.json["proofs"][0]["figures"] == {"tries": 1_234, "ms": 0.5}
    assert "page.md could not be written: No space left on device" in done.stderr
    assert (folder / "page.md").read_text() == "before"


def own(folder: Folder, content: object, *options: str) -> Done:
    return process(
        "prove", "--plan", folder.plan(content), "--tools", "tools.py", "--seed", "5", *options
    )


def test_a_plan_of_ones_own_is_killed_and_goes_on(folder: Folder) -> None:
    done = own(folder, LOOKS, "--kills", "3")
    assert done.code == 0, done
    assert "Holds: Killed at any moment" in done.stdout
    figures = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    assert figures["processes killed"] == "3"
    assert figures["acknowledged events lost"] == "0"
    assert "really called" in done.stderr
    assert "That the proofs can fail is tried on carstore's own plans only" in done.stdout


def test_the_report_of_a_plan_of_ones_own_stands_by_itself(folder: Folder) -> None:
    done = own(folder, LOOKS, "--kills", "1", "--report", "own.md")
    assert done.code == 0, done
    page = (folder / "own.md").read_text()
    assert "* processes killed: 1\n" in page
    assert "Holds: yes." in page
    assert "](" not in page
    assert "<!--" not in page


@pytest.mark.parametrize(
    ("compared", "said"), [(0, "Holds, but no end was compared: "), (2, "Holds: ")]
)
def test_the_verdict_says_whether_ends_were_compared(
    capsys: pytest.CaptureFixture[str], compared: int, said: str
) -> None:
    outcome = Outcome(figures={"ends compared": compared})
    tell_own(Conducted(proof=made_up("your plan"), outcome=outcome, kept=None))
    assert f"\n{said}your plan holds.\n" in capsys.readouterr().out


def test_it_says_how_many_runs_wait_for_a_person(folder: Folder) -> None:
    pays = plan(call("w", "wait", path="began", seconds=0.3))
    done = own(folder, pays, "--kills", "4", "--json")
    assert done.code == 0, done
    [proof] = done.json["proofs"]
    waiting = proof["figures"]["runs left waiting for a person"]
    assert waiting > 0
    assert proof["notes"][0].startswith(f"{waiting} of ")


def test_an_interruption_ends_its_processes(folder: Folder) -> None:
    working = subprocess.Popen(
        command("prove", "--only", "kills", "--kills", "10000", "--json"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(2)
    working.send_signal(signal.SIGINT)
    out, _ = working.communicate(timeout=20)
    assert working.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
