// Passing a request on to a service, streaming both ways.
import http from 'node:http';

const MAX_BODY = 64 * 1024;
const TIMEOUT = 15_000;

// Headers that speak of one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP = new Set([
  'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade',
]);

export function passOn(request, response, base, agent) {
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY) return fail(response, 413, 'the request is too large');
  const target = new URL(base);
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !HOP_BY_HOP.has(name)));
  headers['x-forwarded-for'] = [request.headers['x-forwarded-for'], request.socket.remoteAddress].filter(Boolean).join(', ');
  headers['x-forwarded-proto'] ??= 'http';
  headers.host = target.host;

  const onward = http.request(
    { host: target.hostname, port: target.port || 80, method: request.method, path: request.url, headers, agent, timeout: TIMEOUT },
    (answer) => {
      for (const [name, value] of Object.entries(answer.headers)) {
        if (!HOP_BY_HOP.has(name)) response.setHeader(name, value);
      }
      response.writeHead(answer.statusCode);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    },
  );
  onward.on('timeout', () => onward.destroy(new Error(`no answer within ${TIMEOUT / 1000} s`)));
  onward.on('error', (error) => {
    // An idle connection that the service closed just now: safe to try once more when nothing has been sent.
    if (error.code === 'ECONNRESET' && onward.reusedSocket && request.method === 'GET' && !response.headersSent) {
      return passOn(request, response, base, new http.Agent());
    }
    console.error(`web: ${request.method} ${request.url}: ${target.host}: ${error.message}`);
    return fail(response, 502, 'the service behind this page does not answer');
  });
  response.on('close', () => {
    if (!response.writableFinished) onward.destroy();
  });

  let received = 0;
  request.on('data', (chunk) => {
    received += chunk.length;
    if (received > MAX_BODY) {
      onward.destroy();
      fail(response, 413, 'the request is too large');
      request.destroy();
    }
  });
  // On the second attempt the (empty) body has been read already.
  if (request.readableEnded) onward.end();
  else request.pipe(onward);
}

function fail(response, status, message) {
  if (response.headersSent || response.destroyed) return response.destroy();
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  return response.end(JSON.stringify({ error: message }));
}
