"""openapi-generator, python. Arguments: the URL of a node, and the node to transfer leadership to."""

import sys

from ringmaster_generated import (
    AcquireLock, Action, ActionTransferLeadership, ApiClient, ClusterApi, Configuration, EventSettingChanged, HashKeyHeader,
    HistoryApi, LocksApi, PlanInput, PlansApi, PutSetting, ReleaseLock, SettingsApi, TrafficApi,
)
from ringmaster_generated.exceptions import ApiException

url, to = sys.argv[1:]
client = ApiClient(Configuration(host=url))

assert len(ClusterApi(client).nodes().items) == 3

key = "compatibility/openapi-generator"
settings = SettingsApi(client)
assert settings.put_setting(key, PutSetting(value={"n": 1})).key == key
try:
    settings.put_setting(key, PutSetting(value=2), if_match='"1"')
    raise AssertionError("it was not refused")
except ApiException as error:
    assert error.status == 412, error

plans = PlansApi(client)
action = ActionTransferLeadership(type="transfer_leadership", group=0, to=int(to))
plan = plans.create_plan(PlanInput(action=Action(action)))
assert isinstance(plan.action.actual_instance, ActionTransferLeadership), plan
assert plans.apply_plan(plan.id).plan == plan.id

locks = LocksApi(client)
name, owner = "jobs/nightly", "openapi-generator"
grant = locks.acquire_lock(AcquireLock(name=name, owner=owner, ttl_ms=10000, wait_ms=10000))
assert locks.lock(name).holders[0].token == grant.token
locks.release_lock(ReleaseLock(name=name, owner=owner, token=grant.token))

events = [event.actual_instance for batch in HistoryApi(client).events().items for event in batch.events]
assert any(isinstance(event, EventSettingChanged) for event in events), events
hash_key = TrafficApi(client).upstream("web").hash_key
assert hash_key is not None and isinstance(hash_key.actual_instance, HashKeyHeader), hash_key
