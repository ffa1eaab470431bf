import assert from 'node:assert/strict';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createFrontEnd } from './frontend.js';

let folder, service, front, base;
const seen = [];

const listen = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done(`http://127.0.0.1:${server.address().port}`)));

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shop-web-'));
  await mkdir(join(folder, 'assets'));
  await writeFile(join(folder, 'index.html'), '<!doctype html><title>Shop</title>');
  await writeFile(join(folder, 'assets', 'index-abc.js'), `${'// long enough to be worth compressing\n'.repeat(40)}`);
  await writeFile(join(folder, 'notice.json'), '{"text": "Free delivery"}');
  service = http.createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      seen.push({ method: request.method, url: request.url, body, headers: request.headers });
      response.writeHead(request.method === 'POST' ? 201 : 200, { 'x-served-by': 'orders/test' });
      response.end('{"ok":true}');
    });
  });
  const orders = await listen(service);
  front = createFrontEnd({
    page: folder,
    notice: join(folder, 'notice.json'),
    upstreams: { '/api/orders': orders, '/api/catalogue': 'http://127.0.0.1:1' },
    servedBy: 'web/test',
  });
  base = await listen(front);
});

after(async () => {
  for (const server of [front, service]) {
    server.close();
    server.closeAllConnections();
  }
  await rm(folder, { recursive: true });
});

test('the page is served, may be asked for again cheaply, and names who served it', async () => {
  const first = await fetch(base);
  assert.equal(first.status, 200);
  assert.match(await first.text(), /<title>Shop/);
  assert.equal(first.headers.get('x-front-end'), 'web/test');
  assert.match(first.headers.get('content-security-policy'), /default-src 'none'/);
  const again = await fetch(base, { headers: { 'if-none-match': first.headers.get('etag') } });
  assert.equal(again.status, 304);
});

test('built assets are compressed and kept for good', async () => {
  const asset = await fetch(`${base}/assets/index-abc.js`);
  assert.match(asset.headers.get('cache-control'), /immutable/);
  assert.equal(asset.headers.get('content-encoding'), 'gzip');
});

test('an order is passed on with its body, its path and who asked', async () => {
  const answer = await fetch(`${base}/api/orders?x=1`, { method: 'POST', body: '{"items":[]}', headers: { 'idempotency-key': 'k' } });
  assert.equal(answer.status, 201);
  assert.equal(answer.headers.get('x-served-by'), 'orders/test');
  const request = seen.at(-1);
  assert.deepEqual([request.method, request.url, request.body], ['POST', '/api/orders?x=1', '{"items":[]}']);
  assert.equal(request.headers['idempotency-key'], 'k');
  assert.ok(request.headers['x-forwarded-for']);
});

test('what no route names is not passed on', async () => {
  const before = seen.length;
  assert.equal((await fetch(`${base}/api/ordersinternal`)).status, 404);
  assert.equal((await fetch(`${base}/internal/reservations/1`, { method: 'PUT' })).status, 405);
  assert.equal((await fetch(`${base}/..%2f..%2fetc/passwd`)).status, 404);
  assert.equal(seen.length, before);
});

test('a service that does not answer is a 502 that says so', async () => {
  const answer = await fetch(`${base}/api/catalogue/products`);
  assert.equal(answer.status, 502);
  assert.match((await answer.json()).error, /does not answer/);
});

test('a body that is too large is refused', async () => {
  const answer = await fetch(`${base}/api/orders`, { method: 'POST', body: 'x'.repeat(70_000) });
  assert.equal(answer.status, 413);
});

test('a changed notice shows at the next request', async () => {
  assert.deepEqual(await (await fetch(`${base}/api/notice`)).json(), { text: 'Free delivery' });
  await writeFile(join(folder, 'notice.json'), 'not JSON');
  assert.deepEqual(await (await fetch(`${base}/api/notice`)).json(), { text: '' });
});
