"""`python -m memsync` is `memsync`."""

from memsync.cli.app import entry

if __name__ == "__main__":
    entry()
