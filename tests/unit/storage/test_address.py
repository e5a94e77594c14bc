"""Database URLs."""

from pathlib import Path

import pytest

from compute_horde.storage import postgres
from compute_horde.storage.address import read_address
from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseMisconfigured


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///horde.db", Path("horde.db")),
        ("sqlite+aiosqlite:////var/horde.db", Path("/var/horde.db")),
        ("sqlite:///:memory:", None),
        ("sqlite+aiosqlite://", None),
    ],
)
def test_sqlite(url: str, file: Path | None) -> None:
    address = read_address(url)
    assert (address.dialect, address.file) == ("sqlite", file)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgresql_by_each_of_its_names(scheme: str) -> None:
    address = read_address(f"{scheme}://u:p@h:5/n?sslmode=require")
    assert (address.dialect, address.file) == ("postgresql", None)
    assert address.dsn == "postgresql://u:p@h:5/n?sslmode=require"


@pytest.mark.parametrize(
    "rest", ["u:sEcret@h/n", "u:a@sEcret@h/n", "u@h/n?password=sEcret&x=1", "/n?x=1&sslpassword=sEcret"]
)
def test_a_password_is_never_shown(rest: str) -> None:
    database = Database(f"postgresql://{rest}")
    assert "sEcret" not in database.address.name + repr(database.address) + repr(database.engine)
    assert database.address.name.endswith(("@h/n", "x=1", "=***"))


@pytest.mark.parametrize("url", ["mysql://u:sEcret@h/n", "horde.db", "", "sqlite:", "sqlite://a:b:c@:/x"])
def test_what_is_no_database_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(DatabaseMisconfigured, match="URL") as refused:
        read_address(url)
    assert "sEcret" not in str(refused.value)
    assert isinstance(refused.value, ValueError)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "asyncpg", None)
    with pytest.raises(DatabaseMisconfigured, match=r"pip install 'compute-horde\[horde\]'"):
        Database("postgresql://h/n")
