// openapi-typescript with openapi-fetch. Arguments: the URL of a node, and the node to transfer leadership to.
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const [url, to] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

async function main() {
  const nodes = await client.GET("/v1/nodes");
  check(nodes.data?.items.length === 3, "three nodes");

  const key = "compatibility/openapi-fetch";
  const put = await client.PUT("/v1/settings/{key}", { params: { path: { key } }, body: { value: { n: 1 } } });
  check(put.data?.key === key, "the setting");
  const stale = await client.PUT("/v1/settings/{key}", {
    params: { path: { key }, header: { "If-Match": '"1"' } },
    body: { value: 2 },
  });
  check(stale.response.status === 412 && stale.error?.code === "precondition_failed", "412");

  const action = { type: "transfer_leadership" as const, group: 0, to: Number(to) };
  const plan = await client.POST("/v1/plans", { body: { action } });
  check(plan.data?.action.type === "transfer_leadership", "the plan");
  const applied = await client.POST("/v1/plans/{id}/apply", { params: { path: { id: plan.data.id } } });
  check(applied.data?.plan === plan.data.id, "the operation");

  const name = "jobs/nightly";
  const lock = await client.POST("/v1/locks/acquire", {
    body: { name, owner: "openapi-fetch", ttl_ms: 10000, wait_ms: 10000 },
  });
  check(lock.data !== undefined, "the lock");
  const shown = await client.GET("/v1/locks/{name}", { params: { path: { name } } });
  check(shown.data?.holders[0].token === lock.data.token, "the holder");
  const released = await client.POST("/v1/locks/release", {
    body: { name, owner: "openapi-fetch", token: lock.data.token },
  });
  check(released.response.status === 204, "released");

  const events = await client.GET("/v1/events", { params: { query: { order: "desc" } } });
  const all = events.data?.items.flatMap((batch) => batch.events) ?? [];
  check(all.some((event) => event.type === "setting_changed" && event.setting.key === key), "the events");
  const upstream = await client.GET("/v1/upstreams/{upstream}", { params: { path: { upstream: "web" } } });
  check(upstream.data?.hash_key?.type === "header" && upstream.data.hash_key.name === "x-user", "the upstream");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
