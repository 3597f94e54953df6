"""A file is taken for the state of an audit only where an audit has written it."""

import json
import os
from pathlib import Path
from uuid import UUID

import pytest

from memsync.errors import InvalidInput
from memsync.reconcile.audit_state import AuditState
from memsync.stores.ltm.parts import Seen, packed


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """It would be read for ever, or removed."""
    path = tmp_path / "state"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(InvalidInput, match=r"it is a device or a pipe, .*; name a file"):
        AuditState(path, ("a",), [])
    assert path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"bounds": ["0" * 31 + "2", "0" * 31 + "1"]},
        {"bounds": ["0" * 32, "0" * 32]},
        {"begun_at": "2999-01-01T00:00:00+00:00"},
        {"part": -1},
        {"part": 3},
        {"part": 0.0},
        {"part": "0"},
        {"points": -1},
        {"points": "7"},
        {"ids": 7},
        {"ids": "01" + "00" * 15},
        {"ids": "02" + "00" * 16},
        {"ids": "00" + "ff" * 16},
    ],
    ids=str,
)
def test_a_state_that_no_audit_has_written_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """It would end an audit in the middle, or say too much of what was read."""
    file, whose, bounds = tmp_path / "audit.state", ("a", "b"), [UUID(int=5), UUID(int=7)]
    state = AuditState(file, whose, bounds)
    state.add(Seen(2, 7, packed(7) + packed(UUID(int=2**128 - 1))))
    state.close(remove=False)
    AuditState(file, whose, []).close(remove=False)
    lines: list[dict[str, object]] = [json.loads(each) for each in file.read_bytes().splitlines()]
    file.write_text("".join(json.dumps(each | change) + "\n" for each in lines))
    with pytest.raises(InvalidInput, match=r"cannot continue from .*: it"):
        AuditState(file, whose, [])
