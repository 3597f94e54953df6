"""Says how the packages of one of memsync's extras are installed.

The packages are named, not the extra, because how memsync itself was installed (from a clone, a
wheel or an index) is not known, and `pip install memsync` would look on an index.
"""

import shlex
from importlib.metadata import PackageNotFoundError, requires
from typing import Literal

Extra = Literal["embedded", "distributed"]


def to_install(extra: Extra) -> str:
    """The command that brings the packages of the extra, into the environment of memsync."""
    wanted = f"extra == '{extra}'"
    try:
        lines = [line.replace('"', "'") for line in requires("memsync") or ()]
    except PackageNotFoundError:  # a checkout on PYTHONPATH alone
        lines = []
    packages = [line.partition(";")[0].strip() for line in lines if wanted in line]
    return f"pip install {shlex.join(packages or [f'memsync[{extra}]'])}"
