"""What a student hears: the pool, batches of it, and which clips a victim is asked about."""
