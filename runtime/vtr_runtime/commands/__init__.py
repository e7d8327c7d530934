"""The commands of `vtr-runtime`, a module each. What is heavy is imported where a command begins."""
