"""Run by Alembic: the migrations, on the connection that `klaudit.store.migration` opened and will commit."""

from alembic import context

from klaudit.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
