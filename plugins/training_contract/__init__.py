"""What the Airflow side and the trainer agree on.

Comes in: nothing; this package imports the standard library only, so that it runs in either world (also under
``python -S``). Goes out: the files of a run directory, as values that read and write themselves. The two worlds meet
nowhere else.

``CONTRACT_VERSION`` is bumped by hand, apart from any package's version: the major number when a reader of the old
files would go wrong, the minor number when something optional was added. A reader accepts every minor of its own major.
"""

from __future__ import annotations

from training_contract.version import CONTRACT_VERSION

__all__ = ["CONTRACT_VERSION"]
