"""Columns added, changed and dropped, with their rows moved in between: reads and writes in one transaction."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("customer", sa.Column("name", sa.Text))
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT id, first_name, last_name FROM customer ORDER BY id")).all()
    for row in rows:
        name = {"id": row.id, "name": f"{row.first_name} {row.last_name}"}
        connection.execute(sa.text("UPDATE customer SET name = :name WHERE id = :id"), name)
    left = connection.execute(sa.text("SELECT count(*) FROM customer WHERE name IS NULL")).scalar_one()
    assert left == 0, left
    op.alter_column("customer", "name", nullable=False)
    op.drop_column("customer", "first_name")
    op.drop_column("customer", "last_name")
    op.alter_column("customer", "email", type_=sa.String(200), existing_type=sa.String(100))
    op.add_column("customer", sa.Column("profile", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")))
    op.add_column("customer", sa.Column("credit", sa.Numeric(12, 2), nullable=False, server_default="0"))
    op.add_column("customer", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.create_index("customer_lower_email", "customer", [sa.text("lower(email)")], unique=True)


def downgrade():
    op.drop_index("customer_lower_email", table_name="customer")
    for column in ("profile", "credit", "version"):
        op.drop_column("customer", column)
    op.add_column("customer", sa.Column("first_name", sa.Text, nullable=False, server_default=""))
    op.add_column("customer", sa.Column("last_name", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE customer SET first_name = split_part(name, ' ', 1), last_name = split_part(name, ' ', 2)")
    op.alter_column("customer", "first_name", server_default=None)
    op.alter_column("customer", "last_name", server_default=None)
    op.drop_column("customer", "name")
