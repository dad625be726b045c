"""Indexes made concurrently, which PostgreSQL takes outside a transaction only."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    with op.get_context().autocommit_block():
        op.create_index("orders_customer_state", "orders", ["customer_id", "state"], postgresql_concurrently=True)
        op.create_index("ix_line_order_id", "line", ["order_id"], postgresql_concurrently=True)


def downgrade():
    with op.get_context().autocommit_block():
        op.drop_index("ix_line_order_id", table_name="line", postgresql_concurrently=True)
        op.drop_index("orders_customer_state", table_name="orders", postgresql_concurrently=True)
