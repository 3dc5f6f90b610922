"""Locust's HttpUser against the null server, for `bench calibrate`: nothing but requests."""

from locust import HttpUser, task


class Caller(HttpUser):
    @task
    def get(self):
        self.client.get("/", name="null")
