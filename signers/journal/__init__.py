"""What was signed and told, kept so that it is never forgotten, and the mark that notices an old copy."""
