"""What a training run came to: its figures for programs, and one HTML page that needs no other file."""
