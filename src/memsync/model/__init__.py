"""Pure values that several packages share: ids, records, digests, progress. No I/O."""
