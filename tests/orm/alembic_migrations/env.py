"""Alembic's environment: runs the migrations on the connection that the application hands over."""

from alembic import context

import shop_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=shop_tables.Base.metadata,
    compare_type=True,
    compare_server_default=True,
    transaction_per_migration=context.config.attributes.get("transaction_per_migration", False),
)
with context.begin_transaction():
    context.run_migrations()
