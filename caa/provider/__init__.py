"""The drivers' contract, their registry, and the choice of an instance type."""
