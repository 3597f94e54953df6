"""Opens the vector store with the driver that the scheme of `qdrant_url` names.

A driver is imported only when it is opened, because qdrant-client takes long to load and
qdrant-edge is optional.
"""

from pathlib import Path

from memsync.errors import SettingsError, StoreUnreachable
from memsync.settings import Settings
from memsync.stores.vectors.protocol import VectorStore


def open_vectors(settings: Settings) -> VectorStore:
    """The store that `settings.qdrant_url` names.

    Raises: SettingsError when its driver is not installed; StoreBusy; StoreUnreachable.
    """
    scheme, _, rest = settings.qdrant_url.partition(":")
    if scheme == "edge":
        try:
            from memsync.stores.vectors.edge import open_edge  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name != "qdrant_edge":
                raise
            raise SettingsError(
                "qdrant_url: edge:DIR needs the embedded engine, which is not installed; run "
                "pip install 'memsync[embedded]' or name a server",
                field="qdrant_url",
            ) from None
        return open_edge(Path(rest).expanduser())
    from memsync.stores.vectors.qdrant_open import open_qdrant  # noqa: PLC0415

    key = settings.qdrant_api_key
    return open_qdrant(
        settings.qdrant_url,
        api_key=key.get_secret_value() if key else None,
        grpc=settings.qdrant_grpc,
        timeout_s=settings.qdrant_timeout_s,
    )


def open_standing(settings: Settings) -> VectorStore:
    """The same, but never makes the folder of an embedded store.

    Raises: SettingsError, StoreBusy, StoreUnreachable, also where that folder is missing.
    """
    scheme, _, rest = settings.qdrant_url.partition(":")
    if scheme in {"edge", "local"} and not Path(rest).expanduser().is_dir():
        raise StoreUnreachable(
            f"there is no vector store at {settings.qdrant_url}: the folder does not exist. Check "
            "qdrant_url"
        )
    return open_vectors(settings)
