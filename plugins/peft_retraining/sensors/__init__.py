"""Thin Airflow shells that wait: template fields and one call."""
