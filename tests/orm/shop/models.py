"""The models of the shop."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower


class Customer(models.Model):
    email = models.EmailField(max_length=200, unique=True)
    name = models.TextField()
    tags = ArrayField(models.TextField(), default=list)
    profile = models.JSONField(default=dict)
    credit = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    created_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(Lower("name"), name="shop_lower_name")]
        constraints = [models.CheckConstraint(condition=models.Q(credit__gte=0), name="shop_credit_not_negative")]


class Product(models.Model):
    sku = models.CharField(max_length=40, unique=True)
    title = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.PositiveIntegerField(default=0)


class Order(models.Model):
    class State(models.TextChoices):
        OPEN = "open"
        PAID = "paid"
        SENT = "sent"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    state = models.CharField(max_length=4, choices=State.choices, default=State.OPEN)
    placed_at = models.DateTimeField()
    products = models.ManyToManyField(Product, through="Line")

    class Meta:
        indexes = [models.Index(fields=["customer", "state"], name="shop_customer_state")]


class Line(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.IntegerField()
