CREATE UNLOGGED TABLE seen (reader int, position bigint);
