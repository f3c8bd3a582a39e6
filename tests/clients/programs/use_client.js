// healthchecks-io-client 1.0.4 from npm: its API client and its ping client.
const assert = require('node:assert');
const { HealthChecksApiClient, HealthChecksPingClient } = require('healthchecks-io-client');

const [ROOT, KEY] = process.argv.slice(2);

async function manage(apiVersion) {
  const client = new HealthChecksApiClient({ apiKey: KEY, baseUrl: ROOT, apiVersion });
  const name = `JavaScript ${apiVersion}`;
  const made = await client.createCheck({ name, tags: 'js prod', timeout: 3600, grace: 60 });
  const uuid = made.ping_url.split('/').pop();
  assert.deepStrictEqual((await client.getChecks(['js'])).checks.map((one) => one.name), [name]);
  assert.strictEqual((await client.getCheck(uuid)).timeout, 3600);
  assert.strictEqual((await client.updateCheck(uuid, { name, timeout: 600 })).timeout, 600);

  const ping = new HealthChecksPingClient({ uuid, baseUrl: `${ROOT}/ping` });
  await ping.start();
  await ping.success('copied 3 files');
  await ping.fail('no space left');

  const { pings } = await client.listPings(uuid);
  assert.deepStrictEqual(pings.map((one) => one.type), ['fail', 'success', 'start']);
  const { flips } = await client.listFlips(uuid, { seconds: 3600 });
  assert.deepStrictEqual(flips.map((one) => one.up), [0, 1]);
  assert.strictEqual((await client.pauseCheck(uuid)).status, 'paused');
  assert.ok((await client.getIntegrations()).channels.some((one) => one.id === 'gateway'));
  assert.strictEqual((await client.deleteCheck(uuid)).name, name);
  await assert.rejects(client.getCheck(uuid), { statusCode: 404 });
}

(async () => {
  for (const apiVersion of [1, 2, 3]) await manage(apiVersion);
})();
