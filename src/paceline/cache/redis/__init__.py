"""The cold tier: results in Redis or Valkey, which machines share, with their generations."""
