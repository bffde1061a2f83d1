"""The `strongroom` command's verbs for people and programs: a client of the REST API like any other."""
