"""The page of recipes: what each is after, its students, and what they scored."""
