"""Sonzai's own SDK goes through every call that Waypost makes, against the stand-in.

Wants SONZAI_BASE_URL and SONZAI_API_KEY, the project as its argument, and a stand-in of strict
answers with three agents, two notifications and one wakeup each, and a short delay between retries.
"""

import json
import os
import sys
import time
import urllib.request

from sonzai import APIError, NotFoundError, Sonzai

PROJECT = sys.argv[1]
TYPE = "on_wakeup_ready"
# Nobody listens there, so that attempts fail.
URL = "http://127.0.0.1:1/hooks/sonzai/on_wakeup_ready"

client = Sonzai()


def emit(**what):
    """Tells the stand-in to make an event happen."""
    request = urllib.request.Request(
        os.environ["SONZAI_BASE_URL"] + "/-/emit",
        json.dumps(what).encode(),
        {"content-type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request))["events"][0]


def refused(error, call, *arguments, **more):
    try:
        call(*arguments, **more)
    except error as raised:
        return raised
    raise AssertionError(f"{call} was not refused")


def eventually(look):
    end = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)
    return found


def webhooks(register, listing, rotate, attempts, delete):
    """One scope's webhooks, from the first registration to the end."""
    assert listing().webhooks == []
    first = register(TYPE, webhook_url=URL)
    assert first.success and first.signing_secret.startswith("whsec_"), first
    again = register(TYPE, webhook_url=URL, auth_header="Bearer x")
    assert again.success and not again.signing_secret, again
    [webhook] = listing().webhooks
    assert webhook.event_type == TYPE and webhook.webhook_url == URL, webhook
    assert webhook.project_id == PROJECT, webhook
    rotated = rotate(TYPE)
    assert rotated.signing_secret not in (None, first.signing_secret), rotated
    before = len(attempts(TYPE, page_size=3).to_list())
    emit(type=TYPE, proactive=False)
    found = eventually(
        lambda: len(all := attempts(TYPE, page_size=3).to_list()) == before + 4 and all
    )
    assert [attempt.attempt_number for attempt in found[:4]] == [4, 3, 2, 1], found
    assert {attempt.status for attempt in found} == {"failed"}, found
    assert found[0].request_body, found
    delete(TYPE)
    assert listing().webhooks == []
    refused(NotFoundError, delete, TYPE)
    refused(NotFoundError, rotate, TYPE)


def of_project(call):
    return lambda *arguments, **more: call(PROJECT, *arguments, **more)


hooks = client.webhooks
webhooks(
    hooks.register, hooks.list, hooks.rotate_secret, hooks.list_delivery_attempts, hooks.delete
)
webhooks(
    of_project(hooks.register_for_project),
    of_project(hooks.list_for_project),
    of_project(hooks.rotate_secret_for_project),
    of_project(hooks.list_delivery_attempts_for_project),
    of_project(hooks.delete_for_project),
)

# Agents, two a page.
agents = client.agents.list(page_size=2, project_id=PROJECT, search="luna").to_list()
assert [agent.agent_id for agent in agents] == ["agent-1", "agent-2", "agent-3"], agents
assert agents[0].name == "Luna 1", agents

# An agent's notifications: list, consume, history.
notifications = client.agents.notifications
first, second = notifications.list("agent-1", status="pending", user_id="user-1").notifications
assert notifications.consume("agent-1", first.message_id).success
[left] = notifications.list("agent-1", limit=500).notifications
assert left.message_id == second.message_id, left
refused(APIError, notifications.list, "agent-1", limit=501)
refused(NotFoundError, notifications.consume, "agent-1", "msg-0")
refused(NotFoundError, notifications.list, "agent-9")
statuses = {n.message_id: n.status for n in notifications.history("agent-1").notifications}
assert statuses == {first.message_id: "consumed", second.message_id: "pending"}, statuses

# The project's: list and acknowledge. `project_notifications.list` drops the members that matter.
project = client.project_notifications
emitted = emit(type=TYPE, agent_id="agent-2")
pending = project.list_project_notifications(PROJECT, agent_id="agent-2", event_type=TYPE)
assert pending.count == 3 and len(pending.notifications) == 3, pending
last = pending.notifications[-1]
assert last.notification_id == emitted["notification_id"], last
assert last.payload["wakeup"]["wakeup_id"] == emitted["wakeup_id"], last
ids = [notification.notification_id for notification in pending.notifications]
assert project.acknowledge(PROJECT, ids[:2] + ["nowhere"]).acknowledged == 2
assert project.acknowledge(PROJECT, []).acknowledged == 0
assert project.acknowledge_all(PROJECT, agent_id="agent-2").acknowledged == 1
assert project.list_project_notifications(PROJECT, agent_id="agent-2").notifications == []

# Wakeups: one in the past is due at once.
scheduled = client.agents.schedule_wakeup(
    "agent-3",
    user_id="user-7",
    check_type="birthday",
    intent="wish",
    delay_hours=0,
    scheduled_at="2026-01-01T00:00:00Z",
    occasion="their 30th birthday",
)
assert scheduled.wakeup_id, scheduled


def executed():
    found = client.agents.get_wakeups("agent-3").wakeups
    return [w for w in found if w.wakeup_id == scheduled.wakeup_id and w.status == "executed"]


eventually(executed)
[message] = notifications.list("agent-3", user_id="user-7").notifications
assert message.wakeup_id == scheduled.wakeup_id, message
print("all calls are as they should be")
