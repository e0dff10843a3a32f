"""What a client may ask for, as async functions over the state and the storage: one module a resource. No HTTP here."""
