"""`python -m memsync` is `memsync`."""

from memsync.cli.app import entry

entry()
