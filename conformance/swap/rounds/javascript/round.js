// The round of a client library, with JavaScript's. NAMESPACE and IMAGE are its arguments; each step is told in a line.
import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const [namespace, image] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

async function step(what, work) {
  try {
    await work();
    console.log('ok', what);
  } catch (error) {
    console.log(`failed ${what}: ${String(error.message ?? error).replace(/\s+/g, ' ').slice(0, 300)}`);
  }
}

function within(promise, seconds, what) {
  const limit = new Promise((_, reject) => setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), seconds * 1000).unref());
  return Promise.race([promise, limit]);
}

const name = 'round';
const body = { metadata: { name, labels: { round: 'javascript' } }, data: { a: '1' } };
const seen = [];
let deleted;
const end = new Promise((resolve) => (deleted = resolve));
const { metadata } = await core.listNamespacedConfigMap({ namespace });
const following = await new k8s.Watch(config).watch(
  `/api/v1/namespaces/${namespace}/configmaps`,
  { labelSelector: 'round=javascript', resourceVersion: metadata.resourceVersion },
  (type, object) => {
    seen.push([type, object.data.a]);
    if (type === 'DELETED') deleted();
  },
  () => {},
);

await step('create', async () => assert.deepEqual((await core.createNamespacedConfigMap({ namespace, body })).data, { a: '1' }));
await step('get', async () => assert.deepEqual((await core.readNamespacedConfigMap({ name, namespace })).data, { a: '1' }));
await step('list by label', async () => {
  const { items } = await core.listNamespacedConfigMap({ namespace, labelSelector: 'round=javascript' });
  assert.deepEqual(items.map((item) => item.metadata.name), [name]);
});
await step('patch', async () => {
  const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
  const patched = await core.patchNamespacedConfigMap({ name, namespace, body: { data: { a: '2' } } }, merge);
  assert.deepEqual(patched.data, { a: '2' });
});
await step('update, and a conflict for an old version', async () => {
  const found = await core.readNamespacedConfigMap({ name, namespace });
  await core.replaceNamespacedConfigMap({ name, namespace, body: { ...found, data: { a: '3' } } });
  await assert.rejects(core.replaceNamespacedConfigMap({ name, namespace, body: found }), (error) => error.code === 409);
});
await step('delete', () => core.deleteNamespacedConfigMap({ name, namespace }));
await step('watch', async () => {
  await within(end, 30, 'DELETED');
  assert.deepEqual(seen, [['ADDED', '1'], ['MODIFIED', '2'], ['MODIFIED', '3'], ['DELETED', '3']]);
});
following.abort();

const pod = 'javascript';
await step('a pod gets ready', async () => {
  const spec = { containers: [{ name: 'main', image, args: ['netexec'] }], terminationGracePeriodSeconds: 1 };
  await core.createNamespacedPod({ namespace, body: { metadata: { name: pod }, spec } });
  let stop;
  const ready = new Promise((resolve, reject) => {
    const saw = (_, { status }) => status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') && resolve();
    const query = { fieldSelector: `metadata.name=${pod}` };
    stop = new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/pods`, query, saw, (error) => reject(error ?? new Error('the watch has ended')));
  });
  ready.catch(() => {});
  await within(ready, 60, 'Ready');
  (await stop).abort();
});
await step('logs, followed', async () => {
  let said = '';
  let stop;
  const found = new Promise((resolve) => {
    const out = new Writable({ write(chunk, _, done) { said += chunk; if (said.includes('Started HTTP server')) resolve(); done(); } });
    stop = new k8s.Log(config).log(namespace, pod, 'main', out, { follow: true });
  });
  await within(found, 30, 'the log');
  (await stop).abort();
});
await step('exec', async () => {
  let said = '';
  const out = new Writable({ write(chunk, _, done) { said += chunk; done(); } });
  const done = new Promise((resolve, reject) => {
    new k8s.Exec(config).exec(namespace, pod, 'main', ['hostname'], out, null, null, false, resolve).catch(reject);
  });
  const status = await within(done, 30, 'exec');
  assert.equal(status.status, 'Success');
  assert.equal(said.trim(), pod);
});
await step('delete a pod', () => core.deleteNamespacedPod({ name: pod, namespace }));
process.exit(0);
