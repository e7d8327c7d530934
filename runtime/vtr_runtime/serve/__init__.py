"""`vtr-runtime serve`: the model and an index behind HTTP, with limits. Needs the extra `vtr-runtime[serve]`."""
