"""Columns added, changed and dropped, with their rows moved in between: reads and writes in one transaction."""

import datetime

from django.db import migrations, models
from django.db.models.functions import Lower


def add_rows(apps, _editor):
    customer = apps.get_model("shop", "Customer")
    created = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    customer.objects.bulk_create(
        customer(email=f"old{n}@example.org", first_name=f"First{n}", last_name=f"Last{n}", created_at=created) for n in range(5)
    )


def join_names(apps, _editor):
    for customer in apps.get_model("shop", "Customer").objects.order_by("id").iterator():
        customer.name = f"{customer.first_name} {customer.last_name}"
        customer.save(update_fields=["name"])


def split_names(apps, _editor):
    for customer in apps.get_model("shop", "Customer").objects.order_by("id"):
        customer.first_name, customer.last_name = customer.name.split(" ", 1)
        customer.save()


def drop_rows(apps, _editor):
    apps.get_model("shop", "Customer").objects.filter(email__startswith="old").delete()


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.RunPython(add_rows, drop_rows),
        migrations.AddField("Customer", "name", models.TextField(default="")),
        migrations.RunPython(join_names, split_names),
        migrations.AlterField("Customer", "name", models.TextField()),
        migrations.AlterField("Customer", "first_name", models.TextField(default="")),
        migrations.RemoveField("Customer", "first_name"),
        migrations.AlterField("Customer", "last_name", models.TextField(default="")),
        migrations.RemoveField("Customer", "last_name"),
        migrations.AlterField("Customer", "email", models.EmailField(max_length=200, unique=True)),
        migrations.AddField("Customer", "profile", models.JSONField(default=dict)),
        migrations.AddField("Customer", "credit", models.DecimalField(max_digits=12, decimal_places=2, default=0)),
        migrations.AddConstraint("Customer", models.CheckConstraint(condition=models.Q(credit__gte=0), name="shop_credit_not_negative")),
        migrations.AddIndex("Customer", models.Index(Lower("name"), name="shop_lower_name")),
        migrations.RunSQL("COMMENT ON TABLE shop_customer IS 'who buys'", "COMMENT ON TABLE shop_customer IS NULL"),
    ]
