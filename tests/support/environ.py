"""The environment of a process that is given its settings by it."""

import os
import sys

from memsync.settings import Settings


def environ_of(settings: Settings) -> dict[str, str]:
    """This process's own, with these settings in place of others, and its path for modules."""
    given = settings.model_dump(exclude_unset=True)
    return {
        **{name: value for name, value in os.environ.items() if "MEMSYNC_" not in name},
        **{f"MEMSYNC_{name.upper()}": str(value) for name, value in given.items()},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
