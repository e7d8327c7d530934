"""`python -m vtr_conformance`, as the exporter's gates start it."""

from .cli import main

main()
