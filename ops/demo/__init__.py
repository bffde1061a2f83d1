"""The guided tour: what Strongroom does today, seen from outside by a customer and by a caller of the API."""
