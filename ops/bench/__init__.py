"""Our work beside a well-known peer's, in the same run on the same machine: ratios, for machines differ."""
