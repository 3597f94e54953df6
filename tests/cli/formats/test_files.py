"""Reports as files: whole or not at all, private, and never over somebody else's file."""

import os
import stat
from pathlib import Path

import pytest

from memsync.cli.formats import FORMATS, as_html, files
from memsync.cli.targets import Target, targets_of
from memsync.errors import InvalidInput
from support.reports import audit, report

NAMES = list(FORMATS)
every_format = pytest.mark.parametrize("name", NAMES)


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@every_format
def test_a_new_file_is_private_and_whole(name: str, tmp_path: Path) -> None:
    """Only its owner may read it; it begins with its mark, and nothing is left beside it."""
    target = Target(name, tmp_path / "report")
    files.require([target])
    assert [] == list(tmp_path.iterdir())

    files.write(report(audit(4)), target)

    assert [target.path] == list(tmp_path.iterdir())
    assert 0o600 == mode_of(target.path)
    assert target.path.read_text().startswith(FORMATS[name].mark)


@every_format
def test_its_own_file_is_replaced_and_keeps_its_permissions(name: str, tmp_path: Path) -> None:
    """A report of the same format is replaced; who may read it does not change."""
    target = Target(name, tmp_path / "report")
    target.path.touch()
    target.path.chmod(0o644)
    for number in (4, 0):
        files.require([target])
        files.write(report(audit(number)), target)

    assert 0o644 == mode_of(target.path)
    assert "MSC001 missing-point: 1" not in target.path.read_text()
    assert [target.path] == list(tmp_path.iterdir())


@every_format
@pytest.mark.parametrize("there", ["other", "text in no format", "\0"])
def test_another_file_is_refused(name: str, there: str, tmp_path: Path) -> None:
    """A file that is no report of this format is refused before the audit, and stays."""
    path = tmp_path / "report"
    if there == "other":
        files.write(report(audit(1)), Target("text" if name != "text" else "html", path))
    else:
        path.write_text(there)
    before = path.read_bytes()

    with pytest.raises(InvalidInput, match=rf"exists and is no {name} report"):
        files.require([Target(name, path)])
    with pytest.raises(InvalidInput, match="exists"):
        files.write(report(audit(1)), Target(name, path))
    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_no_link_folder_or_device_is_replaced(tmp_path: Path) -> None:
    """A report goes to a file of its own, and through no link to another place."""
    kept = tmp_path / "kept"
    files.write(report(audit(1)), Target("html", kept))
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path in (
        *(tmp_path / n for n in ("link", "dangling", "folder", "pipe")),
        Path("/dev/null"),
    ):
        with pytest.raises(InvalidInput, match="is a folder, a link or a device"):
            files.require([Target("html", path)])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the folder, and nothing was audited."""
    with pytest.raises(InvalidInput, match="Nothing was audited; see that the folder"):
        files.require([Target("html", tmp_path / "missing" / "report.html")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_closed_is_refused(tmp_path: Path) -> None:
    """A folder without the right to write is told before the audit."""
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidInput, match="Permission denied"):
        files.require([Target("html", tmp_path / "report.html")])


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_end_in_the_middle_leaves_the_old_file(
    end: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stood there is whole, and nothing half is beside it."""
    target = Target("html", tmp_path / "report.html")
    files.write(report(audit(4)), target)
    before = target.path.read_bytes()

    def end_it(*_: object) -> str:
        raise end

    monkeypatch.setattr(as_html, "past", end_it)
    with pytest.raises((KeyboardInterrupt, InvalidInput)):
        files.write(report(audit(0)), target)

    assert before == target.path.read_bytes()
    assert [target.path] == list(tmp_path.iterdir())


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    """Somebody else's file that came while the audit ran is not replaced."""
    target = Target("json", tmp_path / "report.json")
    files.require([target])
    target.path.write_text("{}")

    with pytest.raises(InvalidInput, match="exists and is no json report"):
        files.write(report(audit(0)), target)
    assert "{}" == target.path.read_text()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["xml=report"], "'xml' is no format; there are text, json, json-lines, junit"),
        (["report.html"], "is no format"),
        (["html"], "needs a file"),
        (["html="], "needs a file"),
        (["text=-"], "needs a file"),
        (["html=a\0b"], "NUL"),
        (["html=r", "json=./r"], "one file twice: html=r, json=r"),
    ],
)
def test_what_is_no_report_is_refused(asked: list[str], said: str) -> None:
    """The message says which formats there are, or that a file is missing."""
    with pytest.raises(InvalidInput, match=said):
        targets_of(asked)


def test_a_name_may_hold_an_equals_sign() -> None:
    """Only the first one parts the format from the file."""
    assert (Target("html", Path("a=b.html")),) == targets_of(["html=a=b.html"])
