"""Ground floor: errors, logging and command-line helpers that every other floor may use."""
