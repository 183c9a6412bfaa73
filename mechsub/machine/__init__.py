"""The machine that mechsub runs on: memory, cores, packages, and what a result says of them."""
