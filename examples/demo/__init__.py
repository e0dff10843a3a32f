"""The demo's batch: a thousand varied requests and two simulated providers for them."""
