"""The Python-backend models: each file is copied into the repository as `1/model.py` and runs on vtr-runtime there."""
