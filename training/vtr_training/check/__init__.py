"""`vtr-train check`: what is missing, doubtful or costly, before any GPU is used."""
