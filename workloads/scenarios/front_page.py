"""The simplest traffic: GET / again and again. An ordinary locustfile."""

from locust import task

from workloads.users import HttpUser


class Visitor(HttpUser):
    @task
    def visit(self):
        self.client.get("/", name="front page")
