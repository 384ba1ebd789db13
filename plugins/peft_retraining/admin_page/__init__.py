"""What Airflow's api-server shows of the runs: for now a JSON API under ``/peft-retraining/api/v1``.

Comes in: the run store. Goes out: answers to who may read the DAG. Mounted by Airflow without any authorisation of its
own, so every route here has one.
"""
