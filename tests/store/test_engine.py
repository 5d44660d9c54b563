import sqlite3
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import exc

from klaudit.errors import InvalidConfig, InvalidRecord, KlauditError, MissingExtra, NotAStore, StoreError, StoreUnreachable
from klaudit.store.engine import Database, parse_url, render_url


def list_subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(deeper for one in kind.__subclasses__() for deeper in list_subclasses(one))]


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database("sqlite://", "write")
    yield made
    made.close()


@pytest.mark.parametrize("kind", list_subclasses(exc.DBAPIError), ids=lambda kind: str(kind.__name__))
def test_every_error_of_a_driver_becomes_one_of_ours_without_statement_and_values(kind: type[exc.DBAPIError], database: Database) -> None:
    with pytest.raises((StoreError, InvalidRecord), match="the driver's words") as caught, database.reading():
        raise kind("INSERT", {"prompt": "private"}, Exception("the driver's words"))
    assert "private" not in str(caught.value)


@pytest.mark.parametrize("kind", [exc.InvalidRequestError, exc.TimeoutError, exc.NoResultFound, exc.CompileError])
def test_every_other_error_of_sqlalchemy_becomes_one_of_ours(kind: type[exc.SQLAlchemyError], database: Database) -> None:
    with pytest.raises(StoreError, match="went wrong"), database.writing():
        raise kind("went wrong")


def test_a_lock_is_told_from_a_file_that_is_no_database(database: Database) -> None:
    with pytest.raises(StoreUnreachable), database.writing():
        raise exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))
    with pytest.raises(NotAStore), database.reading():
        raise exc.DatabaseError("SELECT", {}, sqlite3.DatabaseError("file is not a database"))


def test_a_broken_constraint_means_what_the_caller_says(database: Database) -> None:
    meaning = KlauditError("taken")
    with pytest.raises(KlauditError) as caught, database.writing(lambda: meaning):
        raise exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE"))
    assert caught.value is meaning


def test_an_error_in_a_transaction_undoes_it(database: Database) -> None:
    def break_off() -> None:
        with database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO one VALUES (1)")
            raise ZeroDivisionError

    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE one (x)")
    with pytest.raises(ZeroDivisionError):
        break_off()
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT * FROM one").fetchall() == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://ada:s3cret@host:5432/klaudit?sslpassword=s3cret", "postgresql+psycopg://ada:***@host:5432/klaudit"),
        ("sqlite:///klaudit.db", "sqlite:///klaudit.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_a_url_is_shown_without_password_and_options(url: str, shown: str) -> None:
    assert render_url(parse_url(url)) == shown


def test_a_url_whose_driver_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r'pip install "klaudit\[postgres\]"') as caught:
        Database("postgresql://ada:s3cret@host/klaudit", "read")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("given", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_postgresql_means_psycopg_3(given: str) -> None:
    assert parse_url(f"{given}://host/klaudit").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("url", ["mysql://ada:s3cret@host/klaudit", "postgresql+psycopg2://ada:s3cret@host/klaudit"])
def test_a_database_that_klaudit_was_never_tried_with_is_refused(url: str) -> None:
    with pytest.raises(
        InvalidConfig, match=r"such as sqlite:///klaudit\.db or postgresql://user@host/klaudit; got .*ada:\*\*\*@host"
    ) as caught:
        Database(url, "read")
    assert "s3cret" not in str(caught.value)


def test_writes_inside_one_block_are_kept_or_undone_together(database: Database) -> None:
    def write(number: int) -> None:
        with database.writing() as connection:
            connection.exec_driver_sql(f"INSERT INTO one VALUES ({number})")

    def write_half(number: int) -> None:
        with database.writing() as connection:
            connection.exec_driver_sql(f"INSERT INTO one VALUES ({number})")
            raise ZeroDivisionError

    def write_and_break_off() -> None:
        with database.together():
            write(1)
            raise ZeroDivisionError

    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE one (x)")
    with pytest.raises(ZeroDivisionError):
        write_and_break_off()
    with database.together():
        write(2)
        with pytest.raises(ZeroDivisionError):
            write_half(3)
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT x FROM one").scalars().all() == [2]
