"""An index made concurrently, which PostgreSQL takes outside a transaction only."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0002_names")]
    operations = [
        AddIndexConcurrently("Order", models.Index(fields=["customer", "state"], name="shop_customer_state")),
    ]
