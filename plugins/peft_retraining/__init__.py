"""The Airflow side of airflow-peft-retraining.

Comes in: a database of labelled conversations, an Airflow configuration. Goes out: published adapters, and a record of
every run. It never imports torch, transformers, peft, datasets, or the trainer.
"""

from __future__ import annotations

__version__ = "0.1.0"
