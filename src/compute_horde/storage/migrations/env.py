"""Alembic's entry: run the revisions on the connection that :mod:`compute_horde.storage.migrate` opened."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=False)
context.run_migrations()
