"""What the process stands on: sockets, rates, privileges, files, metrics."""
