import assert from 'node:assert/strict';
import { test } from 'node:test';
import { count, lines, price, put, total } from './basket.js';

const mug = { id: 'mug', priceCents: 1250, stock: 3 };
const bell = { id: 'bell', priceCents: 8500, stock: 40 };

test('a basket never holds more than there is in stock', () => {
  assert.deepEqual(put({}, mug, 7), { mug: 3 });
  assert.deepEqual(put({}, bell, 99), { bell: 20 });
  assert.deepEqual(put({}, { ...mug, stock: 0 }, 1), {});
});

test('a quantity of nothing takes a product out', () => {
  assert.deepEqual(put({ mug: 2, bell: 1 }, mug, 0), { bell: 1 });
});

test('lines follow the catalogue, and the total is in cents', () => {
  const basket = { bell: 1, gone: 4, mug: 2 };
  const found = lines(basket, [mug, bell]);
  assert.deepEqual(found.map((line) => line.product.id), ['mug', 'bell']);
  assert.equal(total(found), 11_000);
  assert.equal(count(basket), 7);
  assert.equal(price(1250), '€12.50');
});
