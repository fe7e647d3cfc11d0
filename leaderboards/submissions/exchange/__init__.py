"""Scores and predictions in other people's formats: s3prl's prediction files, CSV, Hugging Face model cards."""
