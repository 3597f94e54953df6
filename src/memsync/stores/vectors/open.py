"""Opens the vector store with the driver that the scheme of `qdrant_url` names.

A driver is imported only when it is opened, because qdrant-client takes long to load and
qdrant-edge is optional.
"""

from pathlib import Path

from memsync.errors import SettingsError
from memsync.model.extras import to_install
from memsync.settings import EMBEDDED, Settings
from memsync.stores.vectors.protocol import VectorStore


def open_vectors(settings: Settings, *, create: bool = False) -> VectorStore:
    """The store that `settings.qdrant_url` names. Only with `create` its missing folder is made.

    Raises: SettingsError when no setting names it, its folder does not exist or its driver is not
    installed; StoreBusy; StoreUnreachable.
    """
    (url,) = settings.named("qdrant_url")
    if not create:
        require_folder(url)
    scheme, _, rest = url.partition(":")
    folder = Path(rest).expanduser().absolute()
    if scheme == "edge":
        try:
            from memsync.stores.vectors.edge import open_edge  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name != "qdrant_edge":
                raise
            raise SettingsError(
                "the embedded Qdrant engine is not installed. Type this in the environment of "
                f"memsync, or let qdrant_url name a server:\n  {to_install('embedded')}",
                field="qdrant_url",
            ) from None
        return open_edge(folder)
    from memsync.stores.vectors.qdrant_open import open_qdrant  # noqa: PLC0415

    key = settings.qdrant_api_key
    return open_qdrant(
        url,
        api_key=key.get_secret_value() if key else None,
        grpc=settings.qdrant_grpc,
        timeout_s=settings.qdrant_timeout_s,
    )


def require_folder(url: str) -> None:
    """Refuse the URL of an embedded store whose folder does not exist. Opens nothing.

    Raises: SettingsError.
    """
    scheme, _, rest = url.partition(":")
    folder = Path(rest).expanduser().absolute()
    if scheme in EMBEDDED and not folder.is_dir():
        raise SettingsError(
            f"there is no vector store in {folder}: the folder does not exist. Check qdrant_url; "
            "`memsync init --embedded` makes a new one",
            field="qdrant_url",
            directory=str(folder),
        )
