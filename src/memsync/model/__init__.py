"""Pure values: ids, records, digests, findings, plans, phases. No I/O."""
