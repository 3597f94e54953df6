"""The example settings file names every setting and nothing else."""

import re
import tomllib
from pathlib import Path

import pytest

from memsync.settings import Settings

EXAMPLE = Path(__file__).parents[1] / "memsync.example.toml"
COMMENTED_OUT = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


def test_example_names_exactly_the_settings() -> None:
    """With its examples switched on, the file holds each setting once."""
    complete = tomllib.loads(COMMENTED_OUT.sub("", EXAMPLE.read_text()))

    assert set(Settings.model_fields) == set(complete)


@pytest.mark.parametrize("examples_on", [False, True])
def test_example_loads(tmp_path: Path, *, examples_on: bool) -> None:
    """The file is accepted both as it is and with all its examples switched on."""
    text = EXAMPLE.read_text()
    config = tmp_path / "memsync.toml"
    config.write_text(COMMENTED_OUT.sub("", text) if examples_on else text)

    Settings.load(config, environ={})


def test_lines_that_are_not_commented_out_are_the_defaults() -> None:
    """Every value that is not commented out is the default."""
    defaults = Settings.load(environ={}).model_dump()
    shown = tomllib.loads(EXAMPLE.read_text())

    assert {name: defaults[name] for name in shown} == shown
