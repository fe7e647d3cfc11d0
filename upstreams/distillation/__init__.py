"""The lab: pre-training of the embedded teacher and distillation of students from any registered upstream."""
