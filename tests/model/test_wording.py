"""How messages say sizes, and how the packages of an extra are installed."""

import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import get_args

import pytest

from memsync.model import extras
from memsync.model.wording import size

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_a_size_is_said_in_the_unit_that_fits() -> None:
    """A disk of terabytes is no long number of megabytes."""
    assert ["0.4 MiB", "1,023.9 MiB", "1.0 GiB", "2,048.0 GiB"] == [
        size(round(mib * 2**20)) for mib in (0.4, 1023.9, 1024, 2**21)
    ]


@pytest.mark.parametrize("extra", get_args(extras.Extra))
def test_the_packages_of_an_extra_are_named(
    extra: extras.Extra, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command works wherever memsync came from: it names packages, not memsync itself."""
    named = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"][extra]

    said = extras.to_install(extra)
    assert said.startswith("pip install ")
    assert all(package.partition(">=")[0] in said for package in named)
    assert "memsync" not in said

    def missing(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", missing)
    assert f"pip install 'memsync[{extra}]'" == extras.to_install(extra)
