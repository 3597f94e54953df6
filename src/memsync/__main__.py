"""Lets `python -m memsync` run the command `memsync`."""

from memsync.cli.app import entry

if __name__ == "__main__":
    entry()
