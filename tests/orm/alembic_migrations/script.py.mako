"""${message}: Alembic asks for this template although nothing is generated here."""
