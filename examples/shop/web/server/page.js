// The built page, held in memory: a few files, read once and compressed once.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { extname, join, relative, sep } from 'node:path';
import { gzipSync } from 'node:zlib';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
};

/**
 * Reads a folder into a map from URL path to file. A folder that is missing gives an empty map.
 * @returns {Promise<Map<string, {body: Buffer, gzip: Buffer | null, type: string, etag: string, immutable: boolean}>>}
 */
export async function loadPage(folder) {
  const files = new Map();
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const url = `/${relative(folder, path).split(sep).join('/')}`;
    const body = await readFile(path);
    const type = TYPES[extname(entry.name)] ?? 'application/octet-stream';
    files.set(url, {
      body,
      gzip: TYPES[extname(entry.name)] && body.length > 512 ? gzipSync(body, { level: 9 }) : null,
      type,
      etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`,
      // Vite puts a hash of the content into the names of what it writes to assets/.
      immutable: url.startsWith('/assets/'),
    });
  }
  return files;
}
