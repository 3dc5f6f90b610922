"""Locust's FastHttpUser against the null server, for `bench calibrate`: nothing but requests."""

from locust import FastHttpUser, task


class Caller(FastHttpUser):
    @task
    def get(self):
        self.client.get("/", name="null")
