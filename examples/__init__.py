"""What can be tried at once with a checkout: a demo's input, and a search engine built with one batch."""
