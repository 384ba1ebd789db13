"""Publishing: trained adapters become versions, and one of them is ``latest``.

Comes in: the adapter directory of an attempt and the result that vouches for its files. Goes out: a version that is
whole or not there, and an alias that never moves to an older interval. Whoever serves the adapter reads it with
``training_contract.adapter_manifest`` alone.

::

    <adapters_directory>/<adapter_name>/.lock                        held while publishing
    <adapters_directory>/<adapter_name>/versions/<version>/...       the adapter's files; manifest.json is written last
    <adapters_directory>/<adapter_name>/latest -> versions/<version>
"""

from __future__ import annotations
