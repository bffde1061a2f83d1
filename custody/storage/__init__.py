"""PostgreSQL: the connection pool and transactions, the schema and its migrations, events, alerts, halts."""
