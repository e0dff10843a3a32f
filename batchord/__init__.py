"""OpenAI's Batch API for any LLM endpoint, on Celery and Redis: the producer's library."""
