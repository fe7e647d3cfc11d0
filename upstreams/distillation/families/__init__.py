"""Students of equal size: solved, written as recipes, distilled and benched in one sweep."""
