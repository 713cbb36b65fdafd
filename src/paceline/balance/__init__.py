"""Who runs, when, and how often: admission and retries."""
