"""What is put under test and what traffic it gets: services, scenarios, matrices."""
