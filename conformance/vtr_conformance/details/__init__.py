"""What a report shows beside its verdict: nothing here is judged."""
