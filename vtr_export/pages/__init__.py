"""What the project's HTML pages share: each is one file, needs no network, and suits light and dark."""
