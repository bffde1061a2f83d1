"""The commands of `strongroom key`: for the people who make, move and stop keys. Needs no online service."""
