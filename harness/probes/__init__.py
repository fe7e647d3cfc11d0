"""Many probes side by side: which utterances come together, parameters with a trial axis, training, predictions."""
