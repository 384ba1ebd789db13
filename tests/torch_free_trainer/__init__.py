"""A trainer without torch that honours the contract, or breaks it on request.

It runs under the real parent process and writes the real documents, so that everything on the Airflow side can be
tested in seconds. ``peft_settings["behaviour"]`` of the spec asks for a particular behaviour, see ``behaviour.py``.
"""
