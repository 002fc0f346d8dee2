"""The programs of medseg: one journey a module, and the only place that sees paths, the environment and exit codes."""
