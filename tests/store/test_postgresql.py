import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from klaudit.errors import InvalidRecord, NotAStore, StoreError, StoreUnreachable
from klaudit.records import LoggedStep
from klaudit.store import Store, check_store, open_store, upgrade_store
from klaudit.store.tables import SCHEMA_REVISION, metadata
from tests.postgresql_server import PASSWORD, PostgreSQLServer, find_free_port
from tests.store.examples import make_run, make_step


@pytest.fixture
def store(postgresql_url: str) -> Iterator[Store]:
    with open_store(postgresql_url) as opened:
        yield opened


def test_a_store_is_made_in_an_empty_database(postgresql_database: str) -> None:
    with pytest.raises(NotAStore, match=r"the database there is empty\. Make it one with: klaudit db upgrade"):
        open_store(postgresql_database)
    with open_store(postgresql_database, create=True) as store:
        store.runs.add(make_run())
    status = check_store(postgresql_database)
    assert (status.revision, status.is_current, status.integrity) == (SCHEMA_REVISION, True, "not checked")
    assert PASSWORD not in status.url


def test_a_database_of_somebody_else_is_left_as_it_is(postgresql_database: str) -> None:
    with psycopg.connect(postgresql_database) as connection:
        connection.execute("CREATE TABLE runs (id text)")
    for verb in (open_store, upgrade_store, check_store):
        with pytest.raises(NotAStore, match="belongs to something else, and was left as it is"):
            verb(postgresql_database)
    with psycopg.connect(postgresql_database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


def test_the_database_explains_its_tables(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        tables: dict[str, str] = dict(
            connection.execute("SELECT relname, obj_description(oid) FROM pg_class WHERE relkind = 'r'").fetchall()
        )
        query = "SELECT col_description('steps'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'steps'::regclass AND attname = 'kl'"
        (explained,) = connection.execute(query).fetchone() or (None,)
    assert {name: tables[name] for name in metadata.tables} == {name: table.comment for name, table in metadata.tables.items()}
    assert explained == metadata.tables["steps"].c.kl.comment


def test_a_server_that_does_not_answer_is_named_without_the_password() -> None:
    url = f"postgresql://ada:{PASSWORD}@127.0.0.1:{find_free_port()}/klaudit"
    with pytest.raises(StoreUnreachable, match=r"ada:\*\*\*@.*What to do: check that the server runs, its host and its port") as caught:
        open_store(url)
    assert PASSWORD not in str(caught.value)


def test_a_database_that_is_not_there_is_named_with_the_way_to_make_one(postgresql_server: PostgreSQLServer) -> None:
    with pytest.raises(StoreUnreachable, match=r'"elsewhere" does not exist.*make the database with: createdb elsewhere'):
        open_store(postgresql_server.url("elsewhere"), create=True)


def test_a_wrong_password_says_where_the_right_one_goes(postgresql_url: str) -> None:
    with pytest.raises(StoreUnreachable, match=r"authentication failed.*PGPASSWORD or in ~/\.pgpass") as caught:
        open_store(postgresql_url.replace(PASSWORD, "not-this"))
    assert "not-this" not in str(caught.value)


def test_a_store_opened_to_read_refuses_to_write(store: Store, postgresql_url: str) -> None:
    store.runs.add(make_run())
    with open_store(postgresql_url, read_only=True) as reader:
        with pytest.raises(StoreError, match="read-only transaction"):
            reader.runs.set_status("id-1", "failed")
        assert reader.runs.get("id-1") == make_run()


def test_a_reader_sees_one_state_of_the_store(store: Store, postgresql_url: str) -> None:
    store.runs.add(make_run())
    with open_store(postgresql_url, read_only=True) as reader, reader._database.reading() as connection:
        counts = [connection.exec_driver_sql("SELECT count(*) FROM steps").scalar()]
        store.steps.add("id-1", make_step())
        counts.append(connection.exec_driver_sql("SELECT count(*) FROM steps").scalar())
    assert counts == [0, 0]
    assert store.steps.count("id-1") == 1


def test_a_second_writer_of_a_run_that_waits_in_vain_says_so_and_can_go_on(store: Store, postgresql_url: str) -> None:
    store.runs.add(make_run())
    with open_store(postgresql_url, busy_timeout_s=0.05) as second:
        with store._database.writing() as connection:
            connection.exec_driver_sql("SELECT * FROM run_summaries FOR UPDATE")
            with pytest.raises(StoreUnreachable, match="lock timeout"):
                second.steps.add("id-1", make_step())
        second.steps.add("id-1", make_step())
    assert store.steps.count("id-1") == 1


def test_text_that_is_too_long_for_its_column_is_refused_and_nothing_is_written(store: Store) -> None:
    with pytest.raises(InvalidRecord, match=r"a length that fits.*nothing was written"):
        store.runs.add(make_run(name="x" * 256))
    with pytest.raises(InvalidRecord, match="nothing was written"):
        store.runs.add(make_run(name="a\0b"))
    assert store.runs.list() == []


def test_names_come_in_the_order_of_sqlite_whatever_the_order_of_the_database(store: Store) -> None:
    for number, name in enumerate(["b", "B", "a", "Ä", "_"]):
        store.runs.add(make_run(number, name=f"run {name}"))
    assert store.runs.names_like("run ") == ["run B", "run _", "run a", "run b", "run Ä"]
    series = make_run().series["kl"]
    store.runs.add(replace(make_run(9), series=dict.fromkeys(("kl_b", "kl_B", "kl_a"), series)))
    assert list(store.runs.get("id-9").series) == ["kl_B", "kl_a", "kl_b"]


def test_after_a_server_that_went_and_came_back_the_store_goes_on(store: Store, postgresql_server: PostgreSQLServer) -> None:
    store.runs.add(make_run())

    def write_while_the_server_dies() -> None:
        with store._database.writing() as connection:
            connection.exec_driver_sql("UPDATE runs SET policy = 'half done'")
            postgresql_server.stop(at_once=True)
            connection.exec_driver_sql("UPDATE runs SET policy = 'done'")

    try:
        with pytest.raises(StoreUnreachable):
            write_while_the_server_dies()
        with pytest.raises(StoreUnreachable, match="check that the server runs"):
            store.steps.add("id-1", make_step())
    finally:
        if postgresql_server.is_stopped:
            postgresql_server.start()
    store.steps.add("id-1", make_step())
    assert store.runs.get("id-1") == make_run()
    assert store.steps.list("id-1") == [make_step()]


def test_a_batch_whose_commit_nobody_heard_of_can_be_sent_again(store: Store, postgresql_url: str) -> None:
    store.runs.add(make_run())
    logged = [LoggedStep(make_step(step)) for step in range(10)]
    store.steps.add_all("id-1", logged[:5])
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}")
    assert store.steps.add_all("id-1", logged) == 5
    assert store.runs.summarize("id-1").n_steps == 10


def test_processes_that_make_the_same_store_at_once_all_get_it(postgresql_database: str) -> None:
    program = f"from klaudit.store import open_store; open_store({postgresql_database!r}, create=True).close()"
    processes = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert check_store(postgresql_database).is_current


def test_a_run_that_is_removed_while_it_is_written_to_ends_the_writing_and_nothing_waits(store: Store) -> None:
    outcomes: list[object] = []

    def write() -> None:
        try:
            for step in range(200):
                store.steps.add("id-1", make_step(step))
        except BaseException as exc:
            outcomes.append(type(exc).__name__)

    store.runs.add(make_run())
    writer = threading.Thread(target=write)
    writer.start()
    while not store.steps.count("id-1"):
        pass
    store.runs.delete("id-1")
    writer.join(timeout=60)
    assert outcomes == ["RunNotFound"]
    assert store.runs.list() == []
