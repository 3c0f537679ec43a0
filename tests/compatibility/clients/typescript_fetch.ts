// openapi-generator, typescript-fetch. Arguments: the URL of a node, and the node to transfer leadership to.
import {
  ClusterApi, Configuration, HistoryApi, LocksApi, PlansApi, ResponseError, SettingsApi, TrafficApi,
} from "./generated";

const [url, to] = process.argv.slice(2);
const configuration = new Configuration({ basePath: url });

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

async function main() {
  const nodes = await new ClusterApi(configuration).nodes();
  check(nodes.items.length === 3, "three nodes");

  const settings = new SettingsApi(configuration);
  const key = "compatibility/typescript-fetch";
  const put = await settings.putSetting({ key, putSetting: { value: { n: 1 } } });
  check(put.key === key, "the setting");
  const stale = await settings
    .putSetting({ key, putSetting: { value: 2 }, ifMatch: '"1"' })
    .then(() => 200, (error: ResponseError) => error.response.status);
  check(stale === 412, "412");

  const plans = new PlansApi(configuration);
  const action = { type: "transfer_leadership" as const, group: 0, to: Number(to) };
  const plan = await plans.createPlan({ planInput: { action } });
  check(plan.action.type === "transfer_leadership" && plan.action.to === Number(to), "the plan");
  const applied = await plans.applyPlan({ id: plan.id });
  check(applied.plan === plan.id, "the operation");

  const locks = new LocksApi(configuration);
  const [name, owner] = ["jobs/nightly", "typescript-fetch"];
  const lock = await locks.acquireLock({ acquireLock: { name, owner, ttlMs: 10000, waitMs: 10000 } });
  const shown = await locks.lock({ name });
  check(shown.holders[0].token === lock.token, "the holder");
  await locks.releaseLock({ releaseLock: { name, owner, token: lock.token } });

  const events = await new HistoryApi(configuration).events({ order: "desc" });
  const all = events.items.flatMap((batch) => batch.events);
  check(all.some((event) => event.type === "setting_changed" && event.setting.key === key), "the events");
  const upstream = await new TrafficApi(configuration).upstream({ upstream: "web" });
  check(upstream.hashKey?.type === "header" && upstream.hashKey.name === "x-user", "the upstream");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
