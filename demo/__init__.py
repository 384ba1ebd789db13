"""A real Airflow on this machine, for the demonstration, for `make up` and for the integration tests."""
