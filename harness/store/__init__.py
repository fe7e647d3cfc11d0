"""The feature store: checked shards with an index, the cap on the disk, the verb ``cache``."""
