"""The SQLAlchemy models of the shop, and the queries of its read-only views: the same for each driver."""

import datetime
import decimal
import enum

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    Numeric,
    String,
    Text,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    OPEN = "open"
    PAID = "paid"
    SENT = "sent"


class Customer(Base):
    __tablename__ = "customer"
    __table_args__ = (Index("customer_lower_email", text("lower(email)"), unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(Text)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    profile: Mapped[dict] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    credit: Mapped[decimal.Decimal] = mapped_column(Numeric(12, 2), server_default="0")
    created_at: Mapped[datetime.datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=func.now())
    version: Mapped[int] = mapped_column(server_default="1")
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", order_by="Order.id", cascade="all, delete-orphan")

    __mapper_args__ = {"version_id_col": version}


class Product(Base):
    __tablename__ = "product"
    __table_args__ = (CheckConstraint("stock >= 0", name="product_stock_not_negative"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(String(40), unique=True)
    title: Mapped[str] = mapped_column(Text)
    price: Mapped[decimal.Decimal] = mapped_column(Numeric(10, 2))
    stock: Mapped[int] = mapped_column(server_default="0")


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (Index("orders_customer_state", "customer_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id", ondelete="CASCADE"))
    state: Mapped[State] = mapped_column(Enum(State, name="order_state"), server_default="OPEN")
    placed_at: Mapped[datetime.datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=func.now())
    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list["Line"]] = relationship(order_by="Line.id", cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = "line"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"), index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    quantity: Mapped[int]
    product: Mapped[Product] = relationship()


PAGE = 20


def customers(count):
    """Returns rows of customers, the same each time."""
    return [
        {
            "email": f"user{number}@example.org",
            "name": f"Name {number:04} äöü '\"\\ ; --",
            "tags": ["new", f"t{number % 7}"] if number % 2 else [],
            "profile": {"level": number % 5, "nested": {"on": number % 3 == 0}},
            "credit": decimal.Decimal(number) / 4,
            "created_at": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(hours=number),
        }
        for number in range(count)
    ]


def products(count):
    return [
        {"sku": f"sku-{number:03}", "title": f"Product {number}", "price": decimal.Decimal(number * 3 + 1) / 2, "stock": 100}
        for number in range(count)
    ]


def page_of_customers(number):
    return select(Customer).order_by(Customer.id).limit(PAGE).offset(number % 15 * PAGE)


def customer_by_email(number):
    return select(Customer).where(func.lower(Customer.email) == f"user{number % 300}@example.org")


def customer_with_orders(number):
    return (
        select(Customer)
        .where(Customer.id == number % 40 + 1)
        .options(joinedload(Customer.orders).selectinload(Order.lines).joinedload(Line.product))
    )


def orders_with_lines(number):
    return select(Order).order_by(Order.id).limit(5).offset(number % 8 * 5).options(subqueryload(Order.lines), selectinload(Order.customer))


def revenue_by_state():
    total = func.sum(Line.quantity * Product.price)
    return (
        select(Order.state, func.count(Order.id.distinct()), total, func.rank().over(order_by=total.desc()))
        .join(Line, Line.order_id == Order.id)
        .join(Product, Product.id == Line.product_id)
        .group_by(Order.state)
        .order_by(Order.state)
    )


def customers_with_large_orders(number):
    large = select(Line.order_id).where(Line.quantity > number % 4).cte("large")
    return (
        select(Customer.id, Customer.name, func.coalesce(Customer.profile["level"].as_integer(), 0))
        .where(exists().where(Order.customer_id == Customer.id, Order.id.in_(select(large.c.order_id))))
        .order_by(Customer.id)
    )


def tagged(number):
    return select(func.count(), func.min(Customer.name)).where(Customer.tags.any(f"t{number % 7}"), Customer.name.ilike("%name%"))
