"""The machine that mechsub runs on: memory, cores, packages, and their record in a result."""
