"""Who the persona of an old message is: by evidence, by choice, by default."""
