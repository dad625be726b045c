"""Views that only read, as requests get them: with ATOMIC_REQUESTS each runs within a transaction."""

from django.db import transaction
from django.db.models import Avg, Count, Exists, F, OuterRef, Prefetch, Sum, Window
from django.db.models.functions import Rank
from django.http import JsonResponse
from django.urls import path

from .models import Customer, Line, Order, Product

PAGE = 20


def listing(_request, number):
    found = Customer.objects.order_by("id")[number % 15 * PAGE :][:PAGE]
    return JsonResponse({"customers": [(one.email, one.tags, one.profile, one.credit, one.created_at) for one in found]})


def detail(_request, number):
    customer = Customer.objects.get(email=f"user{number % 300}@example.org")
    return JsonResponse({"name": customer.name, "orders": list(customer.orders.order_by("id").values_list("state", "placed_at"))})


def graph(_request, number):
    lines = Prefetch("lines", Line.objects.select_related("product").order_by("id"))
    orders = Order.objects.select_related("customer").prefetch_related(lines).order_by("id")[number % 8 * 5 :][:5]
    return JsonResponse({"orders": [(order.customer.email, [(line.product.sku, line.quantity) for line in order.lines.all()]) for order in orders]})


def report(_request, number):
    total = Sum(F("lines__quantity") * F("lines__product__price"))
    states = Order.objects.values("state").annotate(orders=Count("id", distinct=True), total=total).order_by("state")
    ranked = Customer.objects.annotate(rank=Window(Rank(), order_by=F("credit").desc())).order_by("rank", "id")[: number % 5 + 1]
    return JsonResponse({"states": list(states), "first": list(ranked.values_list("email", "rank")), **Product.objects.aggregate(Avg("price"))})


def search(_request, number):
    large = Line.objects.filter(order__customer=OuterRef("pk"), quantity__gt=number % 3)
    found = Customer.objects.filter(Exists(large), tags__contains=["new"], profile__level__lt=4, name__icontains="NAME").order_by("id")
    return JsonResponse({"count": found.count(), "any": found.exists(), "names": list(found.values_list("name", flat=True)[:10])})


def nested(_request, number):
    with transaction.atomic():
        count = Order.objects.filter(state=Order.State.values[number % 3]).count()
    with transaction.atomic():
        last = Order.objects.order_by("-placed_at", "-id").first()
    return JsonResponse({"count": count, "last": last.placed_at, "bulk": sorted(Product.objects.in_bulk([1, 2, 3 + number % 9]))})


def exported(_request, number):
    """Reads by a server-side cursor."""
    quantities = Line.objects.order_by("id").values_list("quantity", flat=True).iterator(chunk_size=40)
    return JsonResponse({"sum": sum(quantities), "number": number % 2})


def nothing(_request, number):
    """Opens a transaction in which there is no statement."""
    return JsonResponse({"number": number % 2})


@transaction.non_atomic_requests
def autocommitted(_request, number):
    return JsonResponse({"stock": Product.objects.aggregate(Sum("stock")), "older": Order.objects.filter(id__lt=number).count()})


def restock(request, number):
    """Reads, then writes, and fails where asked to: only then is nothing kept."""
    product = Product.objects.get(sku=f"sku-{number:03}")
    product.stock += 1
    product.save()
    if "fail" in request.GET:
        raise ValueError("asked to fail")
    return JsonResponse({"stock": Product.objects.get(pk=product.pk).stock})


READ_ONLY = [listing, detail, graph, report, search, nested, exported, nothing, autocommitted]

urlpatterns = [path(f"{view.__name__}/<int:number>", view) for view in [*READ_ONLY, restock]]
