"""The fast user against the null server, for `bench calibrate`: nothing but requests."""

from locust import task

from workloads.users import HttpUser


class Caller(HttpUser):
    @task
    def get(self):
        self.client.get("/", name="null")
