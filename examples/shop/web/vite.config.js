import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  root: 'client',
  plugins: [react()],
  build: { outDir: '../dist', emptyOutDir: true, assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  // `npx vite` while the services run (examples/shop/dev prints their address).
  server: { proxy: { '/api': process.env.SHOP || 'http://127.0.0.1:8080' } },
});
