"""openapi-python-client. Arguments: the URL of a node, and the node to transfer leadership to."""

import sys

from ringmaster_client import Client
from ringmaster_client.api.cluster import nodes
from ringmaster_client.api.history import events
from ringmaster_client.api.locks import acquire_lock, lock, release_lock
from ringmaster_client.api.plans import apply_plan, create_plan
from ringmaster_client.api.settings import put_setting
from ringmaster_client.api.traffic import upstream
from ringmaster_client.models import (
    AcquireLock, ActionTransferLeadership, ActionTransferLeadershipType, EventSettingChanged, HashKeyHeader, LockDetail,
    LockGrant, Operation, PageEventBatch, PageNodeInfo, Plan, PlanInput, PutSetting, ReleaseLock, Setting, Upstream,
)

url, to = sys.argv[1:]
client = Client(base_url=url)

listed = nodes.sync(client=client)
assert isinstance(listed, PageNodeInfo) and len(listed.items) == 3
assert {node.name for node in listed.items}

key = "compatibility/openapi-python-client"
setting = put_setting.sync(key, client=client, body=PutSetting(value={"n": 1}))
assert isinstance(setting, Setting) and setting.key == key
stale = put_setting.sync_detailed(key, client=client, body=PutSetting(value=2), if_match='"1"')
assert stale.status_code == 412

action = ActionTransferLeadership(type_=ActionTransferLeadershipType.TRANSFER_LEADERSHIP, group=0, to=int(to))
plan = create_plan.sync(client=client, body=PlanInput(action=action))
assert isinstance(plan, Plan) and isinstance(plan.action, ActionTransferLeadership), plan
operation = apply_plan.sync(plan.id, client=client)
assert isinstance(operation, Operation) and operation.plan == plan.id, operation

name, owner = "jobs/nightly", "openapi-python-client"
grant = acquire_lock.sync(client=client, body=AcquireLock(name=name, owner=owner, ttl_ms=10000, wait_ms=10000))
assert isinstance(grant, LockGrant), grant
detail = lock.sync(name, client=client)
assert isinstance(detail, LockDetail) and detail.holders[0].token == grant.token
released = release_lock.sync_detailed(client=client, body=ReleaseLock(name=name, owner=owner, token=grant.token))
assert released.status_code == 204

page = events.sync(client=client)
assert isinstance(page, PageEventBatch)
changed = [event for batch in page.items for event in batch.events if isinstance(event, EventSettingChanged)]
assert changed, page
web = upstream.sync("web", client=client)
assert isinstance(web, Upstream) and isinstance(web.hash_key, HashKeyHeader) and web.hash_key.name == "x-user", web
