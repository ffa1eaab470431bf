// The shop's API as the page uses it. Every answer says who gave it; `watchServers` hears of that.

let served = {};
let heard = () => {};

export function watchServers(listener) {
  heard = listener;
  listener(served);
  return () => (heard = () => {});
}

/** "orders/orders-7f9c; Python 3.11" → {service, host, runtime} */
export function parseServedBy(text) {
  const [, service, host, runtime] = /^([^/;]+)\/([^;]+);\s*(.*)$/.exec(text ?? '') ?? [];
  return service ? { service, host, runtime } : null;
}

function note(response) {
  for (const header of ['x-front-end', 'x-served-by']) {
    const by = parseServedBy(response.headers.get(header));
    if (by && served[by.service]?.host !== by.host) {
      served = { ...served, [by.service]: by };
      heard(served);
    }
  }
}

async function call(path, options) {
  const response = await fetch(path, { signal: AbortSignal.timeout(15_000), ...options });
  note(response);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw Object.assign(new Error(body.error ?? `the shop answered ${response.status}`), { fields: body.fields ?? {} });
  }
  return body;
}

export const getProducts = async () => (await call('/api/catalogue/products')).products;
export const getNotice = async () => (await call('/api/notice')).text;
export const getOrder = (id) => call(`/api/orders/${id}`);
export const getRecent = async () => (await call('/api/orders')).orders;
export const getReport = () => call('/api/orders/report');

/** `key` makes it safe to send the same order again when no answer came. */
export const placeOrder = (order, key) =>
  call('/api/orders', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': key },
    body: JSON.stringify(order),
  });
