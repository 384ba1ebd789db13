"""Answers questions with the base model and with the published adapter; runs in the trainer's environment.

Reads ``{"adapters_directory", "adapter_name", "prompts"}`` as JSON from stdin; prints the answers as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peft_trainer.serving import load_latest


def main() -> None:
    """Load the published adapter as a serving process would, and answer."""
    request = json.load(sys.stdin)
    adapter = load_latest(Path(request["adapters_directory"]), request["adapter_name"])
    answers = [
        {"prompt": prompt, "base": adapter.base_answer(prompt), "adapter": adapter.answer(prompt)}
        for prompt in request["prompts"]
    ]
    json.dump({"version": adapter.manifest.version, "answers": answers}, sys.stdout)


if __name__ == "__main__":
    main()
