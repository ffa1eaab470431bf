// The shop's front end: serves the built page and passes /api on. Settings come from the environment:
// PORT, CATALOGUE_URL, ORDERS_URL, PAGE (folder of the built page), NOTICE (JSON file with a notice to show).
import { fileURLToPath } from 'node:url';
import { hostname } from 'node:os';
import { createFrontEnd } from './frontend.js';

const setting = (name, otherwise) => process.env[name] || otherwise;

const server = createFrontEnd({
  page: setting('PAGE', fileURLToPath(new URL('../dist/', import.meta.url))),
  notice: setting('NOTICE', '/etc/shop/notice.json'),
  upstreams: {
    '/api/catalogue': setting('CATALOGUE_URL', 'http://127.0.0.1:8081'),
    '/api/orders': setting('ORDERS_URL', 'http://127.0.0.1:8082'),
  },
  servedBy: `web/${hostname()}; Node.js ${process.versions.node}`,
});

const port = Number(setting('PORT', '8080'));
server.listen(port, process.env.LISTEN || undefined, () => console.log(`web: listening on port ${port}`));

// On SIGTERM: take no new connections, finish what runs, then end.
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}
