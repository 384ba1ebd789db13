"""Thin Airflow shells that work: template fields and one call."""
