"""What every HTTP face of the service is made of: reading, refusing, paging, limits, connections; no database."""
