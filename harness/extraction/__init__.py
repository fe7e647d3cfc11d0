"""Audio into hidden states, once: checks, batches, the pass itself, states on demand."""
