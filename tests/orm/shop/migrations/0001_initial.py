"""The first tables, not yet as the models want them."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Customer",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("email", models.EmailField(max_length=100, unique=True)),
                ("first_name", models.TextField()),
                ("last_name", models.TextField()),
                ("tags", django.contrib.postgres.fields.ArrayField(models.TextField(), default=list)),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            "Product",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sku", models.CharField(max_length=40, unique=True)),
                ("title", models.TextField()),
                ("price", models.DecimalField(max_digits=10, decimal_places=2)),
                ("stock", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("state", models.CharField(max_length=4, choices=[("open", "Open"), ("paid", "Paid"), ("sent", "Sent")], default="open")),
                ("placed_at", models.DateTimeField()),
                ("customer", models.ForeignKey("shop.Customer", models.CASCADE, related_name="orders")),
            ],
        ),
        migrations.CreateModel(
            "Line",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("quantity", models.IntegerField()),
                ("order", models.ForeignKey("shop.Order", models.CASCADE, related_name="lines")),
                ("product", models.ForeignKey("shop.Product", models.PROTECT)),
            ],
        ),
        migrations.AddField("Order", "products", models.ManyToManyField("shop.Product", through="shop.Line")),
    ]
