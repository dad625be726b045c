// The entities of the shop, as TypeORM maps them.
'use strict';

const { EntitySchema } = require('typeorm');

const Customer = new EntitySchema({
  name: 'Customer',
  tableName: 'customer',
  columns: {
    id: { type: 'int', primary: true, generated: 'increment' },
    email: { type: 'varchar', length: 200, unique: true },
    name: { type: 'text' },
    tags: { type: 'text', array: true, default: '{}' },
    profile: { type: 'jsonb', default: {} },
    credit: { type: 'numeric', precision: 12, scale: 2, default: 0 },
    createdAt: { type: 'timestamptz', name: 'created_at', default: () => 'now()' },
    version: { type: 'int', version: true },
    deletedAt: { type: 'timestamptz', name: 'deleted_at', deleteDate: true, nullable: true },
  },
  relations: { orders: { type: 'one-to-many', target: 'Order', inverseSide: 'customer', cascade: true } },
});

const Product = new EntitySchema({
  name: 'Product',
  tableName: 'product',
  columns: {
    id: { type: 'int', primary: true, generated: 'increment' },
    sku: { type: 'varchar', length: 40, unique: true },
    title: { type: 'text' },
    price: { type: 'numeric', precision: 10, scale: 2 },
    stock: { type: 'int', default: 0 },
  },
  checks: [{ name: 'product_stock_not_negative', expression: '"stock" >= 0' }],
});

const Order = new EntitySchema({
  name: 'Order',
  tableName: 'orders',
  columns: {
    id: { type: 'uuid', primary: true },
    number: { type: 'int', unique: true },
    state: { type: 'enum', enum: ['open', 'paid', 'sent'], enumName: 'order_state', default: 'open' },
    placedAt: { type: 'timestamptz', name: 'placed_at' },
  },
  relations: {
    customer: { type: 'many-to-one', target: 'Customer', inverseSide: 'orders', nullable: false, onDelete: 'CASCADE', joinColumn: { name: 'customer_id' } },
    lines: { type: 'one-to-many', target: 'Line', inverseSide: 'order', cascade: true },
  },
  indices: [{ name: 'orders_customer_state', columns: ['customer', 'state'] }],
});

const Line = new EntitySchema({
  name: 'Line',
  tableName: 'line',
  columns: {
    id: { type: 'int', primary: true, generated: 'identity' },
    quantity: { type: 'int' },
  },
  relations: {
    order: { type: 'many-to-one', target: 'Order', inverseSide: 'lines', nullable: false, onDelete: 'CASCADE', joinColumn: { name: 'order_id' } },
    product: { type: 'many-to-one', target: 'Product', nullable: false, joinColumn: { name: 'product_id' } },
  },
});

module.exports = { Customer, Product, Order, Line };
