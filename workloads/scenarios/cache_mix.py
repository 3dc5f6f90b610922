"""Traffic for the session cache: mostly reads, some writes, now and then a report.

An ordinary locustfile. The ids are those of the sessions that the service says it has loaded.
"""

import json
import os
import random
import urllib.request

from locust import constant, events, task

from workloads.users import HttpUser

BODIES = 64
random_source = random.Random(int(os.environ.get("HEAPGATE_SEED", "1")))
sessions = {"count": 0}


def body_of(number: int, size: int) -> str:
    """A session as JSON, about as large as those that the service has."""
    cart = [
        {"sku": f"sku-{number:06d}", "title": "a thing in a cart " * 2, "quantity": 1, "price": 9.5}
        for _ in range(size // 512)
    ]
    note = "written by the load " * (size // 40)
    return json.dumps({"user": f"user {number}", "cart": cart, "note": note})[:-1]


bodies = [body_of(number, random_source.randrange(2048, 6144)) for number in range(BODIES)]


@events.test_start.add_listener
def learn_the_ids(environment, **_kwargs):
    """Ask once, before there is any load, how many sessions there are."""
    try:
        with urllib.request.urlopen(f"{environment.host}/healthz", timeout=5) as answer:
            sessions["count"] = json.load(answer)["sessions"]
    except OSError as error:
        sessions["count"] = 0
        print(f"the service does not answer yet: {error}")


class CacheUser(HttpUser):
    wait_time = constant(0.01)

    def any_id(self):
        return f"s{random_source.randrange(sessions['count']):08d}"

    @task(75)
    def read(self):
        self.client.get(f"/sessions/{self.any_id()}", name="get session")

    @task(22)
    def write(self):
        session_id = self.any_id()
        body = f'{random_source.choice(bodies)}, "id": "{session_id}"}}'
        self.client.put(f"/sessions/{session_id}", data=body, name="put session")

    @task(3)
    def report(self):
        self.client.get("/report", name="report")
