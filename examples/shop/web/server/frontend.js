// The front end as a value: an HTTP server that is not yet listening.
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import { loadPage } from './page.js';
import { passOn } from './proxy.js';

const SECURITY_HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

/**
 * @param {object} options
 * @param {string} options.page folder of the built page
 * @param {string} options.notice JSON file `{"text": …}`, read anew on each request: a changed ConfigMap shows at once
 * @param {Record<string, string>} options.upstreams path prefix → base URL of the service that answers it
 * @param {string} options.servedBy what the X-Served-By header says of this process
 */
export function createFrontEnd({ page, notice, upstreams, servedBy }) {
  const files = loadPage(page);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
  const routes = Object.entries(upstreams);

  const server = http.createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, async (request, response) => {
    response.setHeader('x-front-end', servedBy);
    const path = request.url.split('?', 1)[0];
    const route = routes.find(([prefix]) => path === prefix || path.startsWith(`${prefix}/`));
    if (route) return passOn(request, response, route[1], agent);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return answer(response, 405, { error: 'only GET is answered here' }, { allow: 'GET, HEAD' });
    }
    if (path === '/healthz') return answer(response, 200, { status: 'ok' });
    if (path === '/readyz') {
      const ready = (await files).size > 0;
      return answer(response, ready ? 200 : 503, { status: ready ? 'ok' : 'the page has not been built' });
    }
    if (path === '/api/notice') return answer(response, 200, await readNotice(notice));
    if (path.startsWith('/api/')) return answer(response, 404, { error: 'no such address' });
    return sendFile(request, response, (await files).get(path === '/' ? '/index.html' : path));
  });
  server.on('clientError', (_error, socket) => socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n'));
  return server;
}

function sendFile(request, response, file) {
  if (!file) return answer(response, 404, { error: 'no such page' });
  for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
  response.setHeader('etag', file.etag);
  response.setHeader('cache-control', file.immutable ? 'public, max-age=31536000, immutable' : 'no-cache');
  response.setHeader('vary', 'accept-encoding');
  if (request.headers['if-none-match'] === file.etag) return response.writeHead(304).end();
  response.setHeader('content-type', file.type);
  const zipped = file.gzip && /\bgzip\b/.test(request.headers['accept-encoding'] ?? '');
  if (zipped) response.setHeader('content-encoding', 'gzip');
  const body = zipped ? file.gzip : file.body;
  response.setHeader('content-length', body.length);
  return response.end(request.method === 'HEAD' ? undefined : body);
}

function answer(response, status, body, headers = {}) {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...headers,
  });
  response.end(text);
}

async function readNotice(file) {
  try {
    const { text } = JSON.parse(await readFile(file, 'utf8'));
    return { text: typeof text === 'string' ? text.slice(0, 200) : '' };
  } catch {
    return { text: '' };
  }
}
