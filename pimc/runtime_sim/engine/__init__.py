"""The event-driven engine: numba functions over one record of state."""
