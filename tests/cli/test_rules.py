"""Tests `memsync rules`: every finding code is explained."""

import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from memsync.cli.app import main
from memsync.cli.views import View
from support.cli import run
from support.terminal import on_terminal

NOTHING_MORE = {"summary": False, "show_text": False, "as_lines": False}


def test_closed_pipe_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """`memsync rules | head -1` ends quietly: main returns a status and raises nothing."""
    monkeypatch.setattr("memsync.cli.rules.print_json", closed)

    assert 141 == main(["rules", "--json"])


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_closed_stdout_is_no_error(monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    """`memsync rules >&-` leaves Python without a stdout; a command that succeeds still says 0."""
    monkeypatch.setattr("sys.stdout", None)

    assert 0 == main(["rules", *more])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_stderr_does_not_change_the_status(more: list[str]) -> None:
    """A message that cannot be written leaves the status of the failure as it is."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "memsync", "rules", "MSC999", *more]
        assert 2 == subprocess.run(command, stderr=full, check=False).returncode


def closed(**_: object) -> None:
    """Raise what print raises when the other end of the pipe is closed."""
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("width", [60, 200])
def test_a_paragraph_is_filled_to_the_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """No line is broken where the source broke it: a word moves up where it fits."""
    screen = on_terminal(width, lambda: main(["rules", "MSC001"]), monkeypatch).splitlines()
    told = screen[screen.index("") : screen.index("next: memsync reconcile plan")]

    for line, then in pairwise(told):
        starts = then.startswith(("Why it matters: ", "Repair: "))
        word = then.partition(" ")[0]
        assert not (line and then) or starts or len(f"{line} {word}") > width, (line, then)


def test_a_name_that_is_meant_is_named() -> None:
    """A slip in a code or a name is answered with the one that is like it; case does not count."""
    for typed, meant in (
        ("MSC0001", "MSC001"),
        ("missing-pont", "missing-point"),
        ("MSC01", "MSC001 or MSC010 or MSC011"),
    ):
        for command in (("rules", typed), ("check", "--select", typed)):
            assert f"did you mean {meant}? `memsync rules`" in run(*command).err
    assert run("rules", "msc001").out == run("rules", "MSC001").out
    assert View.of(["msi", "msc001"], None, 1, verify=None, **NOTHING_MORE).select == {
        "MSI",
        "MSC001",
    }


def test_a_family_is_listed() -> None:
    """What --select takes is what rules lists: a family, by its letters, in the order of codes."""
    codes = [rule["code"] for rule in run("rules", "--json").json()["rules"]]
    for family in ("MSC", "mss"):
        listed = [line.split()[0] for line in run("rules", family).out.splitlines()[1:]]
        assert [each for each in codes if each.startswith(family.upper())] == listed
    assert [sorted(each) for _, each in groupby(codes, key=lambda code: code[:3])] == [
        list(each) for _, each in groupby(codes, key=lambda code: code[:3])
    ]


def test_rules() -> None:
    """Every code can be listed and explained, by code and by name."""
    every = run("rules", "--json").json()["rules"]

    by_layout = {"severity", "grade", "next_command"}
    keys = {"code", "name", "about", "ways", *by_layout}
    keys |= {f"{each}_per_persona" for each in by_layout}
    assert keys == set(every[0])
    for rule in every:
        by_code, by_name = run("rules", rule["code"]), run("rules", rule["name"])
        assert (0, by_code.out) == (by_name.status, by_name.out)
        assert rule["about"].splitlines()[0] in by_code.out
