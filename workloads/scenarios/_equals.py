"""Traffic for the A/A comparison of `bench calibrate`: reads of the session cache, now and then a
report, by the fast user, whose own work disturbs the least.
"""

import os
import random

from locust import task

from workloads.users import HttpUser

SESSIONS = 1_000
random_source = random.Random(int(os.environ.get("HEAPGATE_SEED", "1")))


class Visitor(HttpUser):
    @task(97)
    def read(self):
        number = random_source.randrange(SESSIONS)
        self.client.get(f"/sessions/s{number:08d}", name="get session")

    @task(3)
    def report(self):
        self.client.get("/report", name="report")
