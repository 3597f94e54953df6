"""URLs of Postgres as people have them, and the part that an error names."""

import pytest

from memsync.model.urls import PostgresUrl

CANARY = "Canary7Xyzzy"


def test_prismas_parameters() -> None:
    """`schema` and `pgbouncer` are understood, Prisma's pool is left out by name."""
    found = PostgresUrl.parse(
        "postgresql://u:p@h:6432/app?schema=char%20acter&connection_limit=5&pgbouncer=true"
        "&pool_timeout=3&sslmode=require"
    )

    assert "postgresql://u:p@h:6432/app?sslmode=require" == found.uri
    assert ("char acter", True) == (found.schema, found.pooled)
    assert ("connection_limit", "pool_timeout") == found.left_out


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h1:5432,h2:5433/app?target_session_attrs=read-write",
        "postgresql://u:p@[::1]:5432/app",
        "postgresql:///app?service=prod",
        "postgresql://?service=prod",
        "postgresql:///app?host=/run/a@b",
        "postgresql://u:a?b#c@h/app",
        "postgresql://u:a%2Fb%40c%25@h/app",
        "postgresql://h",
        "postgresql://",
    ],
)
def test_what_libpq_reads_is_left_as_it_is(url: str) -> None:
    """Several hosts, sockets, services and odd passwords reach libpq unchanged."""
    assert PostgresUrl(url) == PostgresUrl.parse(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_schemes_of_other_tools(scheme: str) -> None:
    """SQLAlchemy's and the short spelling mean the same."""
    assert "postgresql://u@h/app" == PostgresUrl.parse(f"{scheme}://u@h/app").uri


@pytest.mark.parametrize(
    ("url", "part"),
    [
        (f"postgresql://u:{CANARY}/x@h/app", "password holds a / or @"),
        (f"postgresql://u:{CANARY}@x@h/app", "password holds an @"),
        (f"postgresql://u:{CANARY}%zz@h/app", "password holds a %"),
        (f"postgresql://u:{CANARY}%@h/app", "password holds a %"),
        (f"postgresql://u:{CANARY}", "port of the host 'u'"),
        ("postgresql://h:0/app", "port of the host 'h'"),
        ("postgresql://h:65536/app", "port of the host 'h'"),
        ("postgresql://h1:1,h2:b/app", "port of the host 'h2'"),
        (f"postgresql://u:{CANARY}@[::1/app", "has no ]"),
        (f"postgresql://u:{CANARY}:5432", "several colons"),
        ("postgresql://h/a%b", "the database holds a %"),
        ("postgresql://h/app?schema", "a parameter 'schema' has no value"),
        ("postgresql://h/app?schema=%", "a parameter 'schema' holds a %"),
        ("postgresql://h/app?sslaccept=strict", "'sslaccept' is Prisma's"),
        ("postgresql://h/app?sslcert=ca.pem&sslaccept=accept_invalid_certs", "sslrootcert"),
        ("postgresql://h/app?sslidentity=me.p12", "'sslidentity' is Prisma's"),
        (f"postgresql://u:p@h/db?{CANARY}", "a parameter has no value"),
        (f"postgresql://u:12/a?{CANARY}@h/db", "password holds a / or ?"),
        ("mysql://h/app", "must begin with postgresql://"),
    ],
)
def test_an_error_names_the_part(url: str, part: str) -> None:
    """The wrong part is named, and nothing that may be a password is repeated."""
    with pytest.raises(ValueError, match=r"must|holds|has|port|Prisma") as refused:
        PostgresUrl.parse(url)
    assert part in str(refused.value)
    assert CANARY not in str(refused.value)
