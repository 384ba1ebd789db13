#!/bin/sh
# Turns the ranges (*.in) into pins with hashes (*.txt). Needs `uv` on the PATH.
#
# torch and what only its CUDA build needs are left out: torch is pinned by version in torch.txt and its build is chosen
# at install time, because a lock's hash of one build refuses the other.
set -eu
cd "$(dirname "$0")"
compile="uv pip compile --quiet --generate-hashes --python-version 3.11 --no-header --no-annotate $*"

$compile airflow.in -o airflow.txt
$compile airflow-dev.in -o airflow-dev.txt

cuda=$(uv pip compile --quiet --python-version 3.11 --no-header --no-annotate trainer.in |
    sed -nE 's/^((nvidia|cuda|triton)[a-z0-9-]*)==.*/--no-emit-package \1/p' | tr '\n' ' ')
$compile --no-emit-package torch $cuda trainer.in -o trainer.txt
$compile --no-emit-package torch $cuda trainer-dev.in -o trainer-dev.txt

$compile --no-deps demo.in -o demo.txt
$compile sample-data.in -o sample-data.txt
