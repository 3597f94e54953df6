"""Reads URLs of Postgres as people have them: libpq's, Prisma's and SQLAlchemy's.

It decides which parameters are understood, which are left out, and which part of a URL is wrong. No
message repeats a part that may hold a password. It connects to nothing; libpq judges the values of
its own parameters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_BAD_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})|%00")
_PARAMETER = re.compile("[a-z_]+")
_PORT_MAX = 65535

# The pool and the cache of another client: memsync has settings of its own for them.
_LEFT_OUT = frozenset(
    {
        "connection_limit",
        "pool_timeout",
        "socket_timeout",
        "statement_cache_size",
        "max_connection_lifetime",
        "max_idle_connection_lifetime",
        "single_use_connections",
        "prepared_statements",
        "pool_mode",
    }
)
# Leaving these out would weaken TLS without a word.
_OF_PRISMAS_TLS = frozenset({"sslaccept", "sslidentity"})


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A URL of Postgres. `uri` is what libpq reads of it; it may hold a password.

    `schema` is where the app's tables are, None for the server's own search path. `pooled` is true
    where the URL says that a transaction pooler answers. `left_out` are the parameters that
    memsync does not use.
    """

    uri: str
    schema: str | None = None
    pooled: bool = False
    left_out: tuple[str, ...] = ()

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises: ValueError naming the part that is wrong.
        """
        scheme = _SCHEME.match(url)
        if scheme is None:
            raise ValueError("must begin with postgresql://")
        rest = url[scheme.end() :]
        place, question, query = _split_off_query(rest)
        if "@" in query and "@" not in place and "@" in query.partition("&")[0].partition("=")[0]:
            raise ValueError("the user name or password holds a / or ?; write %2F or %3F for it")
        _require_place(place)
        kept, theirs = [], {}
        for name, value in _parameters(query) if question else ():
            if name in _LEFT_OUT or name in _OF_PRISMAS_TLS or name in {"schema", "pgbouncer"}:
                theirs[name] = unquote(value)
            else:
                kept.append(f"{name}={value}")
        _require_tls_kept(theirs, kept)
        return cls(
            uri=f"postgresql://{place}" + ("?" + "&".join(kept) if kept else ""),
            schema=theirs.get("schema") or None,
            pooled=theirs.get("pgbouncer") == "true",
            left_out=tuple(name for name in theirs if name in _LEFT_OUT),
        )


def _split_off_query(rest: str) -> tuple[str, str, str]:
    # As libpq does: an @ before the first / ends the credentials, so a ? before it is the
    # password's.
    credentials, at, _ = rest.partition("@")
    start = len(credentials) + 1 if at and "/" not in credentials else 0
    place, question, query = rest[start:].partition("?")
    return rest[:start] + place, question, query


def _require_place(place: str) -> None:
    """Check credentials, hosts and database: `user:password@host:port,host:port/database`."""
    credentials, at, after = place.partition("@")
    if not at or "/" in credentials:
        credentials, after = "", place
    hosts, _, database = after.partition("/")
    if "@" in database:
        raise ValueError("the user name or password holds a / or @; write %2F or %40 for it")
    if "@" in hosts:
        raise ValueError("the user name or password holds an @; write %40 for it")
    for part, text in (
        ("the user name or password", credentials),
        ("the host", hosts),
        ("the database", database),
    ):
        if _BAD_PERCENT.search(text):
            raise ValueError(f"{part} holds a % that begins no code like %2F; write %25 for it")
    for host in hosts.split(","):
        _require_host(host)


def _require_host(text: str) -> None:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket:
            raise ValueError("the host begins with [ and has no ]")
    else:
        host, _, port = text.partition(":")
        port = f":{port}" if port else ""
    if ":" in port[1:]:
        # Host and port are not repeated: they may be a password whose host was forgotten.
        raise ValueError("a host holds several colons; write IPv6 as [::1]")
    number = port.removeprefix(":")
    if number and not (number.isascii() and number.isdigit() and 0 < int(number) <= _PORT_MAX):
        raise ValueError(
            f"the port of the host {host!r:.80} is no number from 1 to {_PORT_MAX}. If it is part "
            "of a password, percent-encode the password"
        )


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    for each in filter(None, query.split("&")):
        name, equals, value = each.partition("=")
        if not equals:
            raise ValueError(f"a parameter{_named(name)} has no value; write NAME=VALUE")
        if _BAD_PERCENT.search(value):
            raise ValueError(
                f"a parameter{_named(name)} holds a % that begins no code like %2F; write %25"
            )
        yield name, value


def _named(name: str) -> str:
    """The name for a message; nothing where it is spelled otherwise than a parameter's.

    Such a name may be a part of a password.
    """
    return f" {name!r:.80}" if _PARAMETER.fullmatch(name) else ""


def _require_tls_kept(theirs: dict[str, str], kept: list[str]) -> None:
    of_prismas = sorted(_OF_PRISMAS_TLS & theirs.keys())
    for name in of_prismas:
        # Prisma's sslcert is the server's CA, libpq's is the client's certificate.
        if theirs[name] != "accept_invalid_certs" or any(p.startswith("sslcert=") for p in kept):
            raise ValueError(
                f"the parameter {name!r} is Prisma's, and libpq does not know it; write "
                "sslmode=verify-full and sslrootcert=FILE (sslcert and sslkey for a client)"
            )
